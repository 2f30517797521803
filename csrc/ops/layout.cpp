#include "ops/layout.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/SmallVector.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "ops/dtypes.h"

namespace pyvae {

namespace {

// A tensor and the operand of the call that it fills.
struct Binding {
  const Tensor* tensor;  // undefined: absent
  Operand* operand;
};

// Gives the operands one common index space. Dimensions that are contiguous in all operands are merged. All tensors
// have the sizes of the first. `any_order`: features may be visited in any order (sums allow that), and the memory
// order of the first tensor is used. Otherwise the order is the logical one, in which the noise is counted.
// `row_dims`: the number of leading dimensions that are rows.
Shape lay_out(at::ArrayRef<Binding> bindings, bool any_order, int64_t row_dims = 1) {
  const Tensor& first = *bindings.begin()->tensor;
  const int64_t dims = first.dim();
  Shape shape{};
  shape.rows = c10::multiply_integers(first.sizes().slice(0, row_dims));
  shape.features = shape.rows > 0 ? first.numel() / shape.rows : 0;

  bool contiguous = true;
  for (const Binding& b : bindings) {
    if (!b.tensor->defined()) continue;
    // data_ptr would materialize lazily cloned memory of inputs that are read only.
    b.operand->data = const_cast<void*>(b.tensor->const_data_ptr());
    b.operand->type = int8_t(type_code(b.tensor->scalar_type()));
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
    std::stable_sort(order.begin() + row_dims, order.end(),
                     [&](int64_t a, int64_t b) { return first.stride(a) > first.stride(b); });
  }
  // Outer to inner. A dimension is merged into the one before it if, in every tensor, stride(outer) = stride(inner) *
  // size(inner).
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

Tensor within_dims(const Tensor& tensor) { return tensor.dim() > kMaxDims ? tensor.contiguous() : tensor; }
Tensor within_dims(const OptionalTensor& tensor) { return tensor ? within_dims(*tensor) : Tensor(); }

}  // namespace

Tensor empty_like_operand(const Tensor& tensor, at::TensorOptions options) {
  const auto format = tensor.dim() > kMaxDims ? at::MemoryFormat::Contiguous : at::MemoryFormat::Preserve;
  return at::empty_like(tensor, options, format);
}

Tensor empty_sample(const LatentArguments& a) {
  const auto options = a.mu.options().dtype(sample_type(a));
  return a.samples == 0 ? empty_like_operand(a.mu, options) : at::empty_symint(sample_sizes(a), options);
}

Tensor empty_reduced(const Tensor& like, int64_t reduction, at::ScalarType type) {
  const auto options = like.options().dtype(type);
  return reduction == kNone ? at::empty_symint({like.sym_size(0)}, options) : at::empty({}, options);
}

std::pair<double, double> bounds_of(const OptionalTensor& low, const OptionalTensor& high) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double least = low ? low->item<double>() : -kInfinity, most = high ? high->item<double>() : kInfinity;
  TORCH_CHECK_VALUE(least <= most, "pyvae: the range of logvar must be (low, high) with low <= high, but is (", least,
                    ", ", most, ")");
  return {least, most};
}

LatentTensors::LatentTensors(const LatentArguments& a) : mu(within_dims(a.mu)), scale(within_dims(a.scale)) {
  if (!a.prior_mean) return;
  prior_mean = within_dims(a.prior_mean->expand(a.mu.sizes()));
  prior_scale = within_dims(a.prior_scale->expand(a.mu.sizes()));
}

LatentTensors::LatentTensors(const LatentArguments& a, const OptionalTensor& grad, const OptionalTensor& grad_kl)
    : LatentTensors(a) {
  eps = within_dims(a.eps);
  grad_z = within_dims(grad);
  if (grad_kl && grad_kl->dim() > 1) grad_elements = within_dims(*grad_kl);  // else it is per row, or a scalar
}

void LatentTensors::lay_out(const LatentArguments& a, LatentOperands& out) const {
  const bool any_order = !z.defined() && !grad_z.defined();
  out.samples = std::max<int64_t>(a.samples.expect_int(), 1);
  // With several samples, the first one gives the layout of all.
  const auto first = [&](const Tensor& tensor, int64_t& step) {
    if (!tensor.defined() || a.samples == 0) return tensor;
    step = tensor.stride(0) * int64_t(tensor.element_size());
    return tensor.select(0, 0);
  };
  const Tensor eps = first(this->eps, out.eps_step), z = first(this->z, out.z_step),
               grad_z = first(this->grad_z, out.grad_z_step);
  out.shape = pyvae::lay_out({{&mu, &out.mu},
                              {&scale, &out.scale},
                              {&eps, &out.eps},
                              {&z, &out.z},
                              {&grad_z, &out.grad_z},
                              {&grad_mu, &out.grad_mu},
                              {&grad_scale, &out.grad_scale},
                              {&prior_mean, &out.prior_mean},
                              {&prior_scale, &out.prior_scale},
                              {&elements, &out.elements},
                              {&grad_elements, &out.grad_elements},
                              {&grad_prior_mean, &out.grad_prior_mean},
                              {&grad_prior_scale, &out.grad_prior_scale}},
                             any_order);
  out.in_double = compute_type(mu, scale) == at::kDouble;
  out.first_index = uint64_t(a.row_offset.expect_int()) * uint64_t(out.shape.features);
  out.scale_kind = int(a.scale_kind);
  std::tie(out.low, out.high) = bounds_of(a.low, a.high);
}

LikelihoodTensors::LikelihoodTensors(const LikelihoodArguments& a) : recon(within_dims(a.recon)) {
  const auto sizes = a.recon.sizes();
  const auto spread = [&](const OptionalTensor& factor, double& number) {
    if (!factor) return Tensor();
    if (factor->dim() > 0 || !factor->is_cpu()) return within_dims(factor->expand(sizes));
    number = factor->item<double>();
    return Tensor();
  };
  const bool per_sample = a.target.dim() == a.recon.dim() && a.target.size(0) != a.recon.size(0);
  if (per_sample) samples = a.recon.size(0) / a.target.size(0);
  target = within_dims(per_sample || a.target.sizes() == sizes ? a.target : a.target.reshape(sizes));
  weight = spread(a.weight, weight_number);
  pos_weight = spread(a.pos_weight, pos_weight_number);
  for (size_t k = 0; k < a.parameters.size(); ++k) parameters[k] = within_dims(a.parameters[k]->expand(sizes));
}

void LikelihoodTensors::lay_out(const LikelihoodArguments& a, ObjectiveOperands& out, bool in_order) const {
  c10::SmallVector<Binding, 6 + 2 * kMaxParameters> bindings = {
      {&recon, &out.recon},           {&target, &out.target},     {&weight, &out.weight},
      {&pos_weight, &out.pos_weight}, {&elements, &out.elements}, {&gradient, &out.gradient}};
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    bindings.push_back({&parameters[k], &out.parameters[k]});
    bindings.push_back({&parameter_gradients[k], &out.parameter_gradients[k]});
  }
  c10::SmallVector<Tensor, 6 + 2 * kMaxParameters> split;  // [samples, rows each, ...]
  if (samples > 1) {
    const int64_t each = target.size(0);
    for (Binding& b : bindings) {
      Tensor tensor = *b.tensor;
      if (tensor.defined())
        tensor = b.tensor == &target ? tensor.expand_as(recon.unflatten(0, {samples, each}))
                                     : tensor.unflatten(0, {samples, each});
      split.push_back(tensor);
    }
    for (size_t k = 0; k < bindings.size(); ++k) bindings[k].tensor = &split[k];
  }
  out.shape = pyvae::lay_out(bindings, /*any_order=*/!in_order, samples > 1 ? 2 : 1);
  out.in_double = recon_type(a) == at::kDouble;
  out.weight_number = weight_number;
  out.pos_weight_number = pos_weight_number;
  out.is_weighted = weight.defined() || weight_number != 1;
  out.is_masked = a.weight && a.weight->scalar_type() == at::kBool;
  out.is_pos_weighted = pos_weight.defined() || pos_weight_number != 1;
  out.likelihood = int(a.likelihood);
  out.softmax = has_softmax(a);
}

}  // namespace pyvae
