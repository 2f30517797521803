// What a device provides of the log density: plain functions of checked arguments. Registered behind the checks by
// implement.h; called directly where nothing lies between a call and its device (ops/dispatch.h).
#pragma once

#include "ops/arguments.h"

namespace pyvae {

// By z, mean, scale and logits.
using MixtureGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// One component's density is no sum.
inline bool has_normalizers(const MixtureArguments& a) { return a.mean.sym_size(-2) != 1; }

struct MixtureFunctions {
  // log p(z): [..., B], or with `elements` of each dimension, [..., B, L]; and for backward the largest term of each,
  // and the sum of all relative to it, [2, ...], or empty: not asked for, or of one component.
  std::tuple<Tensor, Tensor> (*forward)(const MixtureArguments&, bool elements, bool with_normalizers);
  // From these, and the result's gradient, in its shape. Without `to_mixture` that of z alone, the others undefined;
  // the logits' is undefined where they are absent.
  MixtureGradients (*backward)(const MixtureArguments&, const Tensor& normalizers, const Tensor& grad, bool elements,
                               bool to_mixture);
};

}  // namespace pyvae
