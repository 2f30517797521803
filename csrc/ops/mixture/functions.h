// The log density's functions that each device implements. Their arguments are already checked. implement.h registers
// them as operators, behind the checks; a plain call (ops/dispatch.h) calls them directly.
#pragma once

#include "ops/arguments.h"

namespace pyvae {

// The gradients of z, mean, scale and logits.
using MixtureGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Whether the density is a sum: with one component it is not.
inline bool has_normalizers(const MixtureArguments& a) { return a.mean.sym_size(-2) != 1; }

struct MixtureFunctions {
  // log p(z): [..., B], or with `elements` per dimension, [..., B, L]. And for backward the normalizers [2, ...]: the
  // largest term of each value, and the sum of all terms relative to it; empty if not requested, or for one component.
  std::tuple<Tensor, Tensor> (*forward)(const MixtureArguments&, bool elements, bool with_normalizers);
  // The gradients from the normalizers and the result's gradient, shaped like the result. Without `to_mixture` only z's
  // is computed and the others are undefined; the gradient of absent logits is undefined.
  MixtureGradients (*backward)(const MixtureArguments&, const Tensor& normalizers, const Tensor& grad, bool elements,
                               bool to_mixture);
};

}  // namespace pyvae
