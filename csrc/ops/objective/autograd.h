// The decoder side's differentiable operators; the arguments are already checked (find_error).
#pragma once

#include <torch/csrc/autograd/variable.h>

#include "ops/arguments.h"

namespace pyvae {

// Each element's value, in recon's shape.
Tensor elements(const LikelihoodArguments& a);

// (loss, reconstruction term, KL term); without `with_terms` only the loss.
torch::autograd::variable_list elbo(const ElboArguments& a, bool with_terms);

}  // namespace pyvae
