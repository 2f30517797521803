// CUDA's half of ops/device.h.
#pragma once

#include "ops/device.h"

namespace pyvae {
namespace cuda {

std::tuple<Tensor, Tensor> latent_forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction);
std::tuple<Tensor, Tensor, Tensor> latent_draw(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                               bool with_kl);
LatentGradients latent_backward(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior);

std::tuple<Tensor, Tensor, Tensor, Gradients> elbo_forward(const ElboArguments& a, int64_t wanted, Breakdown terms);
Gradients elbo_gradient(const LikelihoodArguments& a, const Tensor& upstream, int64_t wanted);
Tensor elbo_backward_(const ElboArguments& a, const OptionalTensor& gradient, const OptionalTensor& grad_loss,
                      const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl);

}  // namespace cuda
}  // namespace pyvae
