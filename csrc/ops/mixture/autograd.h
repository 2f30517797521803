// The differentiable log density, of checked arguments (find_error).
#pragma once

#include "ops/arguments.h"

namespace pyvae {

// [..., B], or with `elements` [..., B, L].
Tensor mixture_log_prob(const MixtureArguments& a, bool elements);

}  // namespace pyvae
