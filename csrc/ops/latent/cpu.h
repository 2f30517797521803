// The encoder side's functions that the decoder side's CPU functions use: the divergence and its gradients.
#pragma once

#include "ops/arguments.h"
#include "ops/cpu/tensors.h"

namespace pyvae {
namespace cpu {

// The divergence, reduced, or [B].
Doubles divergence(const LatentArguments& a, int64_t reduction);
// (grad_mu, grad_scale) of the divergence times `upstream` [B].
std::pair<Tensor, Tensor> divergence_backward(const LatentArguments& a, const Doubles& upstream);

}  // namespace cpu
}  // namespace pyvae
