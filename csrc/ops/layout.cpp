#include "ops/layout.h"

#include <c10/util/SmallVector.h>

#include <algorithm>
#include <numeric>

namespace pyvae {

namespace {

Type type_code(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Type::kFloat;
    case at::kDouble:
      return Type::kDouble;
    case at::kHalf:
      return Type::kHalf;
    case at::kBFloat16:
      return Type::kBFloat16;
    case at::kBool:
      return Type::kBool;
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

Shape lay_out(std::initializer_list<Binding> bindings, bool any_order) {
  const at::Tensor& first = *bindings.begin()->tensor;
  const int64_t dims = first.dim();
  Shape shape{};
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

  c10::SmallVector<int64_t, kMaxDims> order(dims);
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
    TORCH_CHECK(shape.dims <= kMaxDims, "pyvae: more than ", kMaxDims, " dimensions that cannot be merged");
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

}  // namespace pyvae
