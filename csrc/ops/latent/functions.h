// The encoder side's functions that each device implements. Their arguments are already checked. implement.h registers
// them as operators, behind the checks; a plain call (ops/dispatch.h) calls them directly.
#pragma once

#include <ATen/core/Generator.h>

#include "ops/arguments.h"

namespace pyvae {

// The gradients of mu, scale, and the prior's mean and scale.
using LatentGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct LatentFunctions {
  // (z, kl), each empty if not requested; kl is [B], a scalar if reduced, or [B, ...] per element.
  std::tuple<Tensor, Tensor> (*forward)(const LatentArguments&, bool with_z, bool with_kl, int64_t reduction);
  // (z, kl, seed). The seed is drawn from the generator (none: the device's own) and returned for the backward pass.
  std::tuple<Tensor, Tensor, Tensor> (*draw)(const LatentArguments&, const std::optional<at::Generator>&, bool with_kl);
  // (grad_mu, grad_scale) from grad_z [B, ...] and grad_kl, which is [B], a scalar, or per element. An absent one
  // counts as 0. Then, from grad_kl, the gradients of the prior's mean and scale, in their own shapes; undefined
  // without `to_prior`.
  LatentGradients (*backward)(const LatentArguments&, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                              bool to_prior);
};

}  // namespace pyvae
