// The differentiable log density; the arguments are already checked (find_error).
#pragma once

#include "ops/arguments.h"

namespace pyvae {

// [..., B], or with `elements` [..., B, L].
Tensor mixture_log_prob(const MixtureArguments& a, bool elements);

}  // namespace pyvae
