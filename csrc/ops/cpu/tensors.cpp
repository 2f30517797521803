#include "ops/cpu/tensors.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/irange.h>

#include <algorithm>

#ifdef __linux__
#  include <sys/mman.h>
#endif

namespace pyvae {
namespace cpu {

at::Tensor empty_output(const at::Tensor& like, at::ScalarType type) {
  // Most calls take the first branch; it avoids the dispatcher.
  at::Tensor out = like.is_contiguous() ? at::empty(like.sizes(), type) : at::empty_like(like, type);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePage = uintptr_t(1) << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(out.const_data_ptr()) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(out.const_data_ptr()) + out.nbytes()) / kHugePage * kHugePage;
  // This is only advice: if the system declines, nothing changes.
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

Doubles reduce_rows(int64_t rows, int64_t per_row, const double* partials, int64_t reduction) {
  Doubles out(reduction == kNone ? rows : 1, 0.0);
  for (const auto row : c10::irange(rows)) {
    double total = 0;
    for (const auto part : c10::irange(per_row)) total += partials[row * per_row + part];
    out[reduction == kNone ? row : 0] += total;
  }
  if (reduction == kBatchMean) out[0] /= double(rows);
  return out;
}

at::Tensor to_tensor(const Doubles& values, int64_t reduction, at::ScalarType type) {
  return to_tensor(values.size(), [data = values.data()](size_t i) { return data[i]; }, reduction, type);
}

}  // namespace cpu
}  // namespace pyvae
