// The operators as C++ functions: what library.cpp registers and bindings.cpp calls.
//
// Differentiable (Autograd kernels, each a torch::autograd::Function): reparameterize, kl_divergence, elbo.
// Plain (CPU, CUDA and Meta kernels, pure functions): latent_forward, latent_backward, elbo_forward, elbo_gradient.
// For eager mode alone: latent_draw, which advances a generator, and elbo_backward, which works in place.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "ops/codes.h"

namespace pyvae {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline Tensor value_or_undefined(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }

// ---- encoder side: shapes [B, ...] for mu, scale, eps, z; seed [1] int64; kl [B]
// --------------------------------------

std::tuple<Tensor, Tensor> reparameterize(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                          const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                          bool with_kl);
// The same with a seed that the kernel draws from `generator` (none: the device's own), without a launch for it.
std::tuple<Tensor, Tensor> reparameterize_drawn(const Tensor& mu, const Tensor& scale,
                                                const std::optional<at::Generator>& generator, int64_t scale_kind,
                                                c10::SymInt row_offset, bool with_kl);
Tensor kl_divergence(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction);

// (z, kl), each empty where not wanted; kl reduced by `reduction`.
std::tuple<Tensor, Tensor> latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                          const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                          bool with_z, bool with_kl, int64_t reduction);
// (z, kl, seed): with the seed drawn from `generator`, for the backward pass. On CUDA only.
std::tuple<Tensor, Tensor, Tensor> latent_draw(const Tensor& mu, const Tensor& scale,
                                               const std::optional<at::Generator>& generator, int64_t scale_kind,
                                               c10::SymInt row_offset, bool with_kl);
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

// The backward pass of `elbo` in place: gradient (if there is one left, as elbo_forward wrote it) times grad_loss +
// grad_recon, and the KL's gradient mean * (beta grad_loss + grad_kl), [B] of type kl_type (empty if that is not
// given).
Tensor elbo_backward(const OptionalTensor& gradient, const Tensor& recon, const Tensor& target,
                     const OptionalTensor& weight, const OptionalTensor& pos_weight, const OptionalTensor& grad_loss,
                     const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, const OptionalTensor& beta_tensor,
                     double beta, int64_t likelihood, int64_t reduction, std::optional<at::ScalarType> kl_type);

// ---- legality: nullptr, or what is wrong, in a few words. Python gives users the full message before it comes to this
// --

const char* refuse_latent(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                          int64_t scale_kind);
const char* refuse_objective(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                             const OptionalTensor& scale, const OptionalTensor& kl, const OptionalTensor& weight,
                             const OptionalTensor& pos_weight, const OptionalTensor& beta_tensor, int64_t likelihood,
                             int64_t scale_kind, int64_t reduction);

}  // namespace pyvae
