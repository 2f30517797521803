// Registers a device's functions as the log density's operators, with argument checks in front of them.
#pragma once

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/device.h"
#include "ops/mixture/checks.h"
#include "ops/mixture/functions.h"

namespace pyvae {

template <const MixtureFunctions& functions>
struct CheckedMixture {
  static std::tuple<Tensor, Tensor> forward(const MixtureArguments& a, bool elements, bool with_normalizers) {
    check("mixture_forward", find_error(a));
    return functions.forward(a, elements, with_normalizers);
  }

  static MixtureGradients backward(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad,
                                   bool elements, bool to_mixture) {
    check("mixture_backward", find_error(a));
    check("mixture_backward", find_gradient_error(a, normalizers, grad, elements));
    auto [z, mean, scale, logits] = functions.backward(a, normalizers, grad, elements, to_mixture);
    const auto or_empty = [&](const Tensor& t) { return t.defined() ? t : at::empty({0}, a.z.options()); };
    return {z, or_empty(mean), or_empty(scale), or_empty(logits)};
  }
};

template <const MixtureFunctions& functions>
void implement_mixture(torch::Library& m, c10::DeviceType type) {
  registered<MixtureFunctions>(type) = &functions;
  m.impl("mixture_forward", flat<&CheckedMixture<functions>::forward>());
  m.impl("mixture_backward", flat<&CheckedMixture<functions>::backward>());
}

}  // namespace pyvae
