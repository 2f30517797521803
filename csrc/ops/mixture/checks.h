// Checks of the log density's arguments (ops/check.h): return nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const MixtureArguments& a);
// The arguments that autograd passes to mixture_backward: grad shaped like the result, normalizers [2, ...] of that
// shape.
const char* find_gradient_error(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad,
                                bool elements);

}  // namespace pyvae
