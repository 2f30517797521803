// The encoder side's functions that the decoder side's CUDA functions use: the divergence and its gradients.
#pragma once

#include "ops/latent/functions.h"

namespace pyvae {
namespace cuda {

// The forward and backward of LatentFunctions.
std::tuple<Tensor, Tensor> latent_forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction);
LatentGradients latent_backward(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior);

}  // namespace cuda
}  // namespace pyvae
