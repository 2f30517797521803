// Encoder side on CUDA: allocate and launch, one kernel each way.
#include "ops/latent/cuda.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include "ops/broadcast.h"
#include "ops/cuda/tensors.h"
#include "ops/latent/implement.h"

namespace pyvae {
namespace cuda {

namespace {

// One launch of the forward kernel. `draw`: no seed is given; it is drawn from the generator and returned last.
std::tuple<Tensor, Tensor, Tensor> run_forward(const char* function, const LatentArguments& a, bool draw,
                                               const std::optional<at::Generator>& generator, bool with_z, bool with_kl,
                                               int64_t reduction) {
  LatentTensors tensors = with_z ? LatentTensors(a, std::nullopt) : LatentTensors(a);
  const auto options = a.mu.options();
  const at::ScalarType type = compute_type(a.mu, a.scale);
  Call call(function, a.mu);
  if (with_z) tensors.z = a.samples == 0 ? at::empty_like(tensors.mu, options.dtype(sample_type(a))) : empty_sample(a);
  const bool of_elements = with_kl && reduction == kElements;
  if (of_elements) {
    tensors.elements = at::empty_like(tensors.mu, options.dtype(type));
    with_kl = false;  // nothing is summed
  }
  const Tensor kl = of_elements ? tensors.elements
                    : with_kl   ? empty_reduced(a.mu, reduction, type)
                                : at::empty({0}, options.dtype(type));
  Tensor seed;

  LatentForward arguments{};
  tensors.lay_out(a, arguments);
  const Shape& shape = arguments.shape;
  arguments.partition =
      with_kl && reduction == kNone ? Partition(shape.rows, shape.features) : Partition(1, a.mu.numel());
  if (with_kl) arguments.kl = result(kl);
  if (reduction == kBatchMean) arguments.kl_factor = 1.0 / double(shape.rows);
  if (draw) {
    std::tie(arguments.seed, seed) = call.draw(generator);
  } else if (with_z && a.seed) {
    arguments.seed = call.seed(*a.seed);
  }
  if (with_kl && arguments.partition.parts > 1) arguments.workspace = call.workspace(arguments.partition.blocks);
  if (arguments.partition.blocks > 0) call.launch(arguments);
  return {with_z ? tensors.z : at::empty({0}, options.dtype(sample_type(a))), kl, seed};
}

std::tuple<Tensor, Tensor, Tensor> draw(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                        bool with_kl) {
  return run_forward("latent_draw", a, /*draw=*/true, generator, /*with_z=*/true, with_kl, kNone);
}

}  // namespace

std::tuple<Tensor, Tensor> latent_forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction) {
  auto [z, kl, none] = run_forward("latent_forward", a, /*draw=*/false, std::nullopt, with_z, with_kl, reduction);
  return {z, kl};
}

LatentGradients latent_backward(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior) {
  LatentTensors tensors(a, grad_z, grad_kl);
  Call call("latent_backward", a.mu);
  if (!grad_z && !grad_kl) return {at::zeros_like(a.mu), at::zeros_like(a.scale), Tensor(), Tensor()};
  tensors.grad_mu = at::empty_like(tensors.mu), tensors.grad_scale = at::empty_like(tensors.scale);
  if (to_prior) {
    const auto in_compute_type = a.mu.options().dtype(compute_type(a.mu, a.scale));
    tensors.grad_prior_mean = at::empty_like(tensors.mu, in_compute_type);
    tensors.grad_prior_scale = at::empty_like(tensors.mu, in_compute_type);
  }
  if (a.mu.numel() > 0) {
    LatentBackward arguments{};
    tensors.lay_out(a, arguments);
    arguments.partition = Partition(1, a.mu.numel());
    const Tensor upstream = tensors.grad_elements.defined() ? Tensor() : as_real(grad_kl);
    arguments.grad_kl = per_row(upstream);
    if (grad_z && !a.eps) arguments.seed = call.seed(*a.seed);
    call.launch(arguments);
  }
  if (!to_prior) return {tensors.grad_mu, tensors.grad_scale, Tensor(), Tensor()};
  return {tensors.grad_mu, tensors.grad_scale,
          sum_to(tensors.grad_prior_mean, a.prior_mean->sizes(), a.prior_mean->scalar_type()),
          sum_to(tensors.grad_prior_scale, a.prior_scale->sizes(), a.prior_scale->scalar_type())};
}

extern const LatentFunctions kLatent;
const LatentFunctions kLatent = {.forward = latent_forward, .draw = draw, .backward = latent_backward};

}  // namespace cuda

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) { implement_latent<cuda::kLatent>(m, at::PYVAE_DEVICE_TYPE); }

}  // namespace pyvae
