// Checks of the decoder side's arguments (ops/check.h): return nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const LikelihoodArguments& a);
const char* find_error(const ElboArguments& a);

// The output mask may only request gradients of inputs that are present.
const char* find_mask_error(const LikelihoodArguments& a, int64_t output_mask);
// For elbo_gradient: upstream [B].
const char* find_upstream_error(const LikelihoodArguments& a, const Tensor& upstream);
// For elbo_backward_: gradient like recon; parameter_gradients of any shape; the others [B] without reduction, else
// scalars.
const char* find_gradient_error(const ElboArguments& a, const OptionalTensor& gradient,
                                at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl);

}  // namespace pyvae
