#include "ops/layout.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <numeric>

#include "ops/codes.h"

#ifdef __linux__
#  include <sys/mman.h>
#endif

namespace pyvae {

namespace {

cpu::Type type_code(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return cpu::Type::kFloat;
    case at::kDouble:
      return cpu::Type::kDouble;
    case at::kHalf:
      return cpu::Type::kHalf;
    case at::kBFloat16:
      return cpu::Type::kBFloat16;
    case at::kBool:
      return cpu::Type::kBool;
    default:
      TORCH_CHECK_TYPE(false, "pyvae: no kernels for ", type);
  }
}

}  // namespace

bool is_supported_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

at::ScalarType compute_type(at::ScalarType a, at::ScalarType b) {
  return a == at::kDouble || b == at::kDouble ? at::kDouble : at::kFloat;
}

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

cpu::Shape lay_out(std::initializer_list<Binding> bindings, bool any_order) {
  const at::Tensor& first = *bindings.begin()->tensor;
  const int64_t dims = first.dim();
  cpu::Shape shape{};
  shape.rows = first.size(0);
  shape.features = shape.rows > 0 ? first.numel() / shape.rows : 0;

  bool contiguous = true;
  for (const Binding& b : bindings) {
    if (!b.tensor->defined()) continue;
    // data_ptr would materialize lazily cloned memory of inputs that are only read.
    b.operand->data = const_cast<void*>(b.tensor->const_data_ptr());
    b.operand->type = type_code(b.tensor->scalar_type());
    contiguous &= b.tensor->is_contiguous();
  }
  if (contiguous || first.numel() == 0) {
    shape.dims = 1;
    shape.sizes[0] = first.numel();
    for (const Binding& b : bindings) b.operand->contiguous = true, b.operand->strides[0] = 1;
    return shape;
  }

  c10::SmallVector<int64_t, cpu::kMaxDims> order(dims);
  std::iota(order.begin(), order.end(), 0);
  if (any_order) {
    std::stable_sort(order.begin() + 1, order.end(),
                     [&](int64_t a, int64_t b) { return first.stride(a) > first.stride(b); });
  }
  // Outer to inner; a dimension joins the one before it if that one's step is exactly its whole length everywhere.
  int64_t last = -1;  // the dimension of `first` that was added last
  for (const int64_t d : order) {
    if (first.size(d) == 1) continue;
    const bool joins = last >= 0 && std::all_of(bindings.begin(), bindings.end(), [&](const Binding& b) {
                         return !b.tensor->defined() || b.tensor->stride(last) == b.tensor->stride(d) * first.size(d);
                       });
    if (!joins) ++shape.dims;
    TORCH_CHECK(shape.dims <= cpu::kMaxDims, "pyvae: more than ", cpu::kMaxDims, " dimensions that cannot be merged");
    int64_t& size = shape.sizes[shape.dims - 1];
    size = joins ? size * first.size(d) : first.size(d);
    for (const Binding& b : bindings) {
      if (b.tensor->defined()) b.operand->strides[shape.dims - 1] = b.tensor->stride(d);
    }
    last = d;
  }
  if (shape.dims == 0) shape.dims = 1, shape.sizes[0] = 1;  // a single element
  for (const Binding& b : bindings) {
    int64_t step = 1;
    b.operand->contiguous = true;
    for (int d = shape.dims - 1; d >= 0; step *= shape.sizes[d--])
      b.operand->contiguous &= b.operand->strides[d] == step;
  }
  return shape;
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

Doubles reduce_rows(const cpu::Shape& shape, const double* partials, int64_t reduction) {
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
