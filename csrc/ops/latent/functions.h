// What a device provides of the encoder side: plain functions of checked arguments. Registered behind the checks by
// implement.h; called directly where nothing lies between a call and its device (ops/dispatch.h).
#pragma once

#include <ATen/core/Generator.h>

#include "ops/arguments.h"

namespace pyvae {

// By mu, by scale, and by the prior's mean and scale.
using LatentGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct LatentFunctions {
  // (z, kl), each empty where not asked for; kl [B], reduced to a scalar, or of each element, [B, ...].
  std::tuple<Tensor, Tensor> (*forward)(const LatentArguments&, bool with_z, bool with_kl, int64_t reduction);
  // (z, kl, seed): with the seed drawn from the generator (none: the device's own), for the backward pass.
  std::tuple<Tensor, Tensor, Tensor> (*draw)(const LatentArguments&, const std::optional<at::Generator>&, bool with_kl);
  // (grad_mu, grad_scale) from grad_z [B, ...] and grad_kl, [B], one for all, or of each element; an absent one counts
  // as 0. And those of the prior's mean and scale, in their own shapes, from grad_kl; undefined without `to_prior`.
  LatentGradients (*backward)(const LatentArguments&, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                              bool to_prior);
};

}  // namespace pyvae
