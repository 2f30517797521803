// Which gradients the forward pass computes and saves, and which of them an upstream gradient may multiply later.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <string>

#include "ops/objective/functions.h"

namespace pyvae {

bool is_in_16_bits(const Tensor& tensor);

// True if gradients are computed for an upstream gradient of 1, and multiplied by the real one later. False in 16 bits,
// which would round before the upstream gradient (a loss scale, say) is known; for recon alone the backward kernel
// handles that. False also if sums over rows are requested and each row has its own upstream gradient, unless the
// device's functions (null: none can be called directly) can compare these.
bool stores_unscaled_gradients(const ElboArguments& a, const ObjectiveFunctions* functions);

// Whether any upstream gradient can multiply this gradient. False for a sum over rows if each row has its own upstream
// gradient.
bool is_scalable(const ElboArguments& a, int64_t place);
bool are_scalable(const ElboArguments& a, int64_t mask);
// The mask, with kKept added if backward_rows_ will multiply its gradients.
int64_t with_kept(const ElboArguments& a, const ObjectiveFunctions* functions, int64_t mask);

// Calls elbo_gradient: directly, or (without `functions`) through the dispatcher.
Gradients compute_gradients(const LikelihoodArguments& a, const ObjectiveFunctions* functions, const Tensor& upstream,
                            int64_t output_mask);

// Of the gradients that the kernels compute, those that autograd requests.
int64_t required_gradients(const LikelihoodArguments& a);
// Whether recon or another input that needs a gradient is in 16 bits.
bool is_any_in_16_bits(const LikelihoodArguments& a);

// The names of the forward pass's gradients in an autograd function's saved_data.
inline std::string buffer_name(int64_t place) { return "gradient" + std::to_string(place); }
// Returns the buffer, at most once, since the caller holds it from then on. Undefined if it was taken before, or never
// existed. The buffer is dropped here and also marked by its version, for a context that was copied before (compiled
// autograd does this).
Tensor take_buffer(torch::autograd::AutogradContext* ctx, int64_t place);

// The gradients that the forward pass computes. None if hooks pack saved tensors (torch.utils.checkpoint, offloading),
// since these would not see the gradients; and none if a tracer would have to compare the rows' upstream gradients.
int64_t gradients_in_forward(const ElboArguments& a);

}  // namespace pyvae
