// Legality of an operator's arguments: nullptr, or what is wrong, in a few words (Python gives users the full message).
// Asked once a call: by the eager entries, which then call around the dispatcher, or by the operators.
#pragma once

#include "ops/arguments.h"

namespace pyvae {

const char* refuse(const LatentArguments& a);
const char* refuse(const LikelihoodArguments& a);
const char* refuse(const ElboArguments& a);

// What autograd hands to the backward operators. grad_z [B, ...]; grad_kl [B], [] or, of each element, [B, ...].
const char* refuse_gradients(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                             bool to_prior);
// Of elbo_gradient: upstream [B].
const char* refuse_upstream(const LikelihoodArguments& a, const Tensor& upstream);
// Gradients by what is not there.
const char* refuse_wanted(const LikelihoodArguments& a, int64_t wanted);
// gradient as recon; the others [B] without reduction, else scalars.
const char* refuse_gradients(const ElboArguments& a, const OptionalTensor& gradient, const OptionalTensor& grad_loss,
                             const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl);

}  // namespace pyvae
