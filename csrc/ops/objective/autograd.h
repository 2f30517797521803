// The decoder side's differentiable operators, of checked arguments (find_error).
#pragma once

#include <torch/csrc/autograd/variable.h>

#include "ops/arguments.h"

namespace pyvae {

// Each element's value, in recon's shape.
Tensor elements(const LikelihoodArguments& a);

// (loss, reconstruction term, KL term); without `with_terms` the loss alone.
torch::autograd::variable_list elbo(const ElboArguments& a, bool with_terms);

}  // namespace pyvae
