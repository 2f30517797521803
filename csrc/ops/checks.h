// What every device's operators check before they allocate, and the types of their results.
#pragma once

#include "ops/operators.h"

namespace pyvae {

void check_latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                          int64_t scale_kind, bool with_z, int64_t reduction);
void check_latent_backward(const OptionalTensor& grad_z, const OptionalTensor& grad_kl, const Tensor& mu,
                           const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                           int64_t scale_kind);
void check_elbo(const Tensor& recon, const Tensor& target, const OptionalTensor& mu, const OptionalTensor& scale,
                const OptionalTensor& kl, const OptionalTensor& weight, const OptionalTensor& pos_weight,
                const OptionalTensor& beta_tensor, int64_t likelihood, int64_t scale_kind, int64_t reduction);
void check_elbo_gradient(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                         const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood);

// The type of the KL term; without one it is 0, in the type of the reconstruction term.
at::ScalarType kl_type(const OptionalTensor& mu, const OptionalTensor& scale, const OptionalTensor& kl,
                       at::ScalarType otherwise);

}  // namespace pyvae
