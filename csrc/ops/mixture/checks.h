// Checks of the log density's arguments (ops/check.h): nullptr, or what is wrong.
#pragma once

#include "ops/check.h"

namespace pyvae {

const char* find_error(const MixtureArguments& a);
// What autograd hands to mixture_backward: grad in the result's shape, normalizers [2, ...] of it.
const char* find_gradient_error(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad,
                                bool elements);

}  // namespace pyvae
