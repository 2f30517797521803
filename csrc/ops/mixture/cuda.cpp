// The log density on CUDA: allocate and launch.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cuda/tensors.h"
#include "ops/mixture/implement.h"
#include "ops/mixture/tensors.h"

namespace pyvae {
namespace cuda {

namespace {

// Whether the call is a posterior: one component without a weight for each sample of the batch.
bool is_posterior(const MixtureOperands& a) {
  return a.components == 1 && !a.log_weight && a.rows <= kFewSamples * a.groups;
}

// One call of a mixture: its scratch memory and its launches.
class MixtureCall {
 public:
  MixtureCall(const char* function, const Tensor& z, const MixtureOperands& operands, at::ScalarType type)
      : call_(function, z), options_(z.options().dtype(type)) {
    static_cast<MixtureOperands&>(arguments_) = operands;
    arguments_.tiling = MixtureTiling(operands);
    cells_ = at::empty({2 * operands.groups * operands.components * operands.features}, options_);
    peaks_ = at::empty({arguments_.tiling.problems * operands.components}, options_);
    arguments_.cells = cells_.mutable_data_ptr(), arguments_.peaks = peaks_.mutable_data_ptr();
    launch(MixtureStage::kPrepare);
  }

  void launch(MixtureStage stage) {
    arguments_.stage = stage;
    call_.launch(arguments_);
  }

  // Computes the components' gradients.
  void launch_sums() {
    const MixtureTiling& t = arguments_.tiling;
    const int64_t count = t.problems * t.parts * t.sums_each(arguments_.components);
    sums_ = at::empty({count}, options_.dtype(at::kDouble));
    arguments_.sums = sums_.mutable_data_ptr<double>();
    launch(MixtureStage::kMoments);
    launch(MixtureStage::kFinish);
  }

 private:
  Call call_;
  at::TensorOptions options_;
  Mixture arguments_;
  Tensor cells_, peaks_, sums_;
};

void launch_posterior(const char* function, const Tensor& z, const MixtureOperands& operands, bool backward) {
  Call call(function, z);
  PosteriorDensity arguments{};
  static_cast<MixtureOperands&>(arguments) = operands;
  arguments.backward = backward;
  if (backward) {
    arguments.partition = Partition(1, operands.groups * operands.features);
  } else {
    arguments.partition = operands.elements ? Partition(1, operands.rows * operands.features)
                                            : Partition(operands.rows, operands.features);
    if (arguments.partition.parts > 1) arguments.workspace = call.workspace(arguments.partition.blocks);
  }
  if (arguments.partition.blocks > 0) call.launch(arguments);
}

std::tuple<Tensor, Tensor> forward(const MixtureArguments& a, bool elements, bool with_normalizers) {
  MixtureOperands operands{};
  const c10::OptionalDeviceGuard guard(a.z.device());
  const MixtureTensors tensors(a, elements, operands);
  const auto [values, normalizers] = empty_values(a, elements, with_normalizers, tensors.type);
  if (values.numel() == 0) return {values, normalizers};
  operands.values = values.mutable_data_ptr();
  if (is_posterior(operands)) {
    launch_posterior("mixture_forward", tensors.z, operands, /*backward=*/false);
    return {values, normalizers};
  }
  if (normalizers.numel() > 0) lay_out_normalizers(normalizers, operands);
  MixtureCall("mixture_forward", tensors.z, operands, tensors.type).launch(MixtureStage::kValues);
  return {values, normalizers};
}

MixtureGradients backward(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad, bool elements,
                          bool to_mixture) {
  MixtureOperands operands{};
  const c10::OptionalDeviceGuard guard(a.z.device());
  const MixtureTensors tensors(a, elements, operands);
  const Tensor given = tensors.made(normalizers), upstream = tensors.made(grad);
  const auto options = a.z.options().dtype(tensors.type);
  const bool is_empty = operands.rows == 0 || operands.features == 0;
  const Tensor grad_z = at::empty(a.z.sizes(), options);
  Tensor grad_mean, grad_scale, weights;
  if (to_mixture) {
    const auto made = [&](at::IntArrayRef sizes, at::ScalarType type) {
      return is_empty ? at::zeros(sizes, options.dtype(type)) : at::empty(sizes, options.dtype(type));
    };
    grad_mean = made(a.mean.sizes(), tensors.type), grad_scale = made(a.mean.sizes(), tensors.type);
    if (a.logits) weights = made({operands.groups, operands.components}, at::kDouble);
    operands.grad_mean = grad_mean.mutable_data_ptr(), operands.grad_scale = grad_scale.mutable_data_ptr();
    operands.grad_weight = weights.defined() ? weights.mutable_data_ptr<double>() : nullptr;
  }
  if (!is_empty) {
    if (has_normalizers(a)) lay_out_normalizers(given, operands);
    operands.upstream = upstream.const_data_ptr(), operands.grad_z = grad_z.mutable_data_ptr();
    if (is_posterior(operands)) {
      launch_posterior("mixture_backward", tensors.z, operands, /*backward=*/true);
    } else {
      MixtureCall call("mixture_backward", tensors.z, operands, tensors.type);
      call.launch(MixtureStage::kByZ);
      if (to_mixture) call.launch_sums();
    }
  }
  const Tensor by_z = grad_z.to(a.z.scalar_type());
  if (!to_mixture) return {by_z, Tensor(), Tensor(), Tensor()};
  Tensor by_logits;
  if (a.logits) {  // the sum of r per component, minus pi times the total
    by_logits = weights - tensors.log_weight.exp().view_as(weights) * weights.sum(-1, /*keepdim=*/true);
    by_logits = by_logits.view(a.logits->sizes()).to(a.logits->scalar_type());
  }
  return {by_z, grad_mean.to(a.mean.scalar_type()), grad_scale.to(a.scale.scalar_type()), by_logits};
}

}  // namespace

extern const MixtureFunctions kMixture;
const MixtureFunctions kMixture = {.forward = forward, .backward = backward};

}  // namespace cuda

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) { implement_mixture<cuda::kMixture>(m, at::PYVAE_DEVICE_TYPE); }

}  // namespace pyvae
