// Which gradients the forward pass computes and saves, and which of them an upstream gradient may multiply afterwards.
#pragma once

#include "ops/objective/gradients.h"

namespace pyvae {

bool is_in_16_bits(const Tensor& tensor);

// True if gradients are computed for an upstream gradient of 1, and multiplied by it afterwards. Not in 16 bits, which
// would round them before the upstream gradient (a loss scale, say) comes; for recon alone the backward kernel sees to
// that. Nor where sums over rows are asked for and each row has an upstream gradient of its own, unless the host can
// see that these are equal after all.
bool stores_unscaled_gradients(const ElboArguments& a);

// Whether an upstream gradient can multiply this gradient whatever its numbers are: not a sum over rows, where each row
// has its own.
bool is_scalable(const ElboArguments& a, int64_t place);

// The gradients that the forward pass computes. Not where hooks pack what is saved (torch.utils.checkpoint,
// offloading), which would not see the gradients; nor where a tracer would have to compare the rows' upstream
// gradients.
int64_t gradients_in_forward(const ElboArguments& a);

}  // namespace pyvae
