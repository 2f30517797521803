// Which gradients the forward pass computes and saves, and which of them an upstream gradient may multiply afterwards.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <string>

#include "ops/objective/functions.h"

namespace pyvae {

bool is_in_16_bits(const Tensor& tensor);

// True if gradients are computed for an upstream gradient of 1, and multiplied by it afterwards. Not in 16 bits, which
// would round them before the upstream gradient (a loss scale, say) comes; for recon alone the backward kernel sees to
// that. Nor where sums over rows are asked for and each row has an upstream gradient of its own, unless the device's
// functions (null: none can be called directly) can see that these are equal after all.
bool stores_unscaled_gradients(const ElboArguments& a, const ObjectiveFunctions* functions);

// Whether an upstream gradient can multiply this gradient whatever its numbers are: not a sum over rows, where each row
// has its own.
bool is_scalable(const ElboArguments& a, int64_t place);
bool are_scalable(const ElboArguments& a, int64_t mask);
// The mask, and kKept where backward_rows_ will be asked to multiply its gradients.
int64_t with_kept(const ElboArguments& a, const ObjectiveFunctions* functions, int64_t mask);

// By elbo_gradient: directly, or (without `functions`) through the dispatcher.
Gradients compute_gradients(const LikelihoodArguments& a, const ObjectiveFunctions* functions, const Tensor& upstream,
                            int64_t output_mask);

// The gradients that autograd asks for, of those that the kernels compute.
int64_t required_gradients(const LikelihoodArguments& a);
// Whether recon or anything else that has a gradient is in 16 bits.
bool is_any_in_16_bits(const LikelihoodArguments& a);

// What the forward pass made is among an autograd function's saved_data, under these names.
inline std::string buffer_name(int64_t place) { return "gradient" + std::to_string(place); }
// The buffer, at most once, since a caller holds it from then on. Undefined where it is spent, or never was. Besides
// being dropped here it is marked by its version, for a context that was copied before (compiled autograd does so).
Tensor take_buffer(torch::autograd::AutogradContext* ctx, int64_t place);

// The gradients that the forward pass computes. Not where hooks pack what is saved (torch.utils.checkpoint,
// offloading), which would not see the gradients; nor where a tracer would have to compare the rows' upstream
// gradients.
int64_t gradients_in_forward(const ElboArguments& a);

}  // namespace pyvae
