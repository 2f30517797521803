// What a device provides of the log density: plain functions of checked arguments. Registered behind the checks by
// implement.h; called directly where nothing lies between a call and its device (ops/dispatch.h).
#pragma once

#include "ops/arguments.h"

namespace pyvae {

// By z, mean, scale and logits.
using MixtureGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct MixtureFunctions {
  // log p(z): [..., B], or with `elements` of each dimension, [..., B, L].
  Tensor (*forward)(const MixtureArguments&, bool elements);
  // From what forward gave, and its gradient, in one shape. Without `to_mixture` that of z alone, the others undefined;
  // the logits' is undefined where they are absent.
  MixtureGradients (*backward)(const MixtureArguments&, const Tensor& values, const Tensor& grad, bool elements,
                               bool to_mixture);
};

}  // namespace pyvae
