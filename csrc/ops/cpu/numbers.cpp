#include "ops/cpu/numbers.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/irange.h>

#include <algorithm>

#include "ops/codes.h"

#ifdef __linux__
#  include <sys/mman.h>
#endif

namespace pyvae {

at::Tensor empty_output(const at::Tensor& like, at::ScalarType type) {
  at::Tensor out = at::empty_like(like, type);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePage = uintptr_t(1) << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(out.const_data_ptr()) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(out.const_data_ptr()) + out.nbytes()) / kHugePage * kHugePage;
  // Advice: where the system declines, nothing changes.
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  return out;
}

Doubles read_doubles(const at::Tensor& values) {
  Doubles out(values.numel());
  const int64_t stride = values.dim() > 0 ? values.stride(0) : 0;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, values.scalar_type(), "pyvae", [&] {
    const scalar_t* data = values.const_data_ptr<scalar_t>();
    for (const auto i : c10::irange(out.size())) out[i] = double(data[int64_t(i) * stride]);
  });
  return out;
}

Doubles reduce_rows(const Shape& shape, const double* partials, int64_t reduction) {
  const int64_t parts = cpu::Partition(shape).chunks_per_row;
  Doubles out(reduction == kNone ? shape.rows : 1, 0.0);
  for (const auto row : c10::irange(shape.rows)) {
    double total = 0;
    for (const auto part : c10::irange(parts)) total += partials[row * parts + part];
    out[reduction == kNone ? row : 0] += total;
  }
  if (reduction == kBatchMean) out[0] /= double(shape.rows);
  return out;
}

at::Tensor to_tensor(const double* values, int64_t count, bool scalar, at::ScalarType type) {
  at::Tensor out = scalar ? at::empty({}, type) : at::empty({count}, type);
  if (type == at::kDouble) {
    std::copy(values, values + count, out.mutable_data_ptr<double>());
  } else {
    std::transform(values, values + count, out.mutable_data_ptr<float>(), [](double x) { return float(x); });
  }
  return out;
}

}  // namespace pyvae
