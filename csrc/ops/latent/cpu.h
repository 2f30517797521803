// What the decoder side's CPU functions use of the encoder side's: the divergence, and its gradients.
#pragma once

#include "ops/arguments.h"
#include "ops/cpu/tensors.h"

namespace pyvae {
namespace cpu {

// Reduced, or [B].
Doubles divergence(const LatentArguments& a, int64_t reduction);
// (grad_mu, grad_scale) of the divergence times `upstream` [B].
std::pair<Tensor, Tensor> divergence_backward(const LatentArguments& a, const Doubles& upstream);

}  // namespace cpu
}  // namespace pyvae
