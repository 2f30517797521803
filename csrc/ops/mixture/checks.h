// Checks of the log density's arguments (ops/check.h): nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const MixtureArguments& a);
// What autograd hands to mixture_backward, both in the result's shape.
const char* find_gradient_error(const MixtureArguments& a, const Tensor& values, const Tensor& grad, bool elements);

}  // namespace pyvae
