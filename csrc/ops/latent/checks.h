// Checks of the encoder side's arguments (ops/check.h): return nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const LatentArguments& a);
// Only if z is computed.
const char* find_noise_error(const LatentArguments& a);
// For the divergence.
const char* find_reduction_error(int64_t reduction);
// The arguments that autograd passes to latent_backward. grad_z [B, ...]; grad_kl [B], [] or, per element, [B, ...].
const char* find_gradient_error(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior);

}  // namespace pyvae
