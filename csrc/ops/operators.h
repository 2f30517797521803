// The operators as C++ functions: what library.cpp registers and bindings.cpp calls.
//
// Differentiable (Autograd kernels, each a torch::autograd::Function): reparameterize, kl_divergence, elbo.
// Plain (CPU and Meta kernels, pure functions): latent_forward, latent_backward, elbo_forward, elbo_gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "ops/codes.h"

namespace pyvae {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---- encoder side: shapes [B, ...] for mu, scale, eps, z; seed [1] int64; kl [B]
// --------------------------------------

std::tuple<Tensor, Tensor> reparameterize(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                          const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                          bool with_kl);
Tensor kl_divergence(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction);

// (z, kl), each empty where not wanted; kl reduced by `reduction`.
std::tuple<Tensor, Tensor> latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                          const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                          bool with_z, bool with_kl, int64_t reduction);
// (grad_mu, grad_scale) from grad_z [B, ...] and grad_kl [B]; an absent one counts as 0.
std::tuple<Tensor, Tensor> latent_backward(const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                           const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                           const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset);

// ---- decoder side: recon, target [B, ...]; weight, pos_weight broadcastable to recon; kl [B]
// ----------------------------

// (loss, reconstruction term, KL term): [B] without reduction, else scalars. The KL comes from `kl`, or from mu and
// scale, or is 0. beta multiplies beta_tensor (a scalar), if there is one.
std::tuple<Tensor, Tensor, Tensor> elbo(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                                        const OptionalTensor& scale, const OptionalTensor& kl,
                                        const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                        const OptionalTensor& beta_tensor, double beta, int64_t likelihood,
                                        int64_t scale_kind, int64_t reduction);
// The same and d(reconstruction term)/d recon (empty unless wanted), in the same pass.
std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_forward(const Tensor& recon, const Tensor& target,
                                                        const OptionalTensor& mu, const OptionalTensor& scale,
                                                        const OptionalTensor& kl, const OptionalTensor& weight,
                                                        const OptionalTensor& pos_weight,
                                                        const OptionalTensor& beta_tensor, double beta,
                                                        int64_t likelihood, int64_t scale_kind, int64_t reduction,
                                                        bool with_gradient);
// upstream[b] * weight * d value / d recon, shaped and typed as recon; upstream [B].
Tensor elbo_gradient(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                     const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood);

// ---- legality: nullptr, or what is wrong, in a few words. Python gives users the full message before it comes to this
// --

const char* refuse_latent(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                          int64_t scale_kind);
const char* refuse_objective(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                             const OptionalTensor& scale, const OptionalTensor& kl, const OptionalTensor& weight,
                             const OptionalTensor& pos_weight, const OptionalTensor& beta_tensor, int64_t likelihood,
                             int64_t scale_kind, int64_t reduction);

}  // namespace pyvae
