// Checks of the encoder side's arguments (ops/check.h): nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const LatentArguments& a);
// Where there is to be a sample.
const char* find_noise_error(const LatentArguments& a);
// Of the divergence.
const char* find_reduction_error(int64_t reduction);
// What autograd hands to latent_backward. grad_z [B, ...]; grad_kl [B], [] or, of each element, [B, ...].
const char* find_gradient_error(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior);

}  // namespace pyvae
