// Registers a device's functions as the decoder side's operators, with argument checks in front of them.
#pragma once

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/device.h"
#include "ops/objective/checks.h"
#include "ops/objective/functions.h"

namespace pyvae {

// The operators' signatures.
using ElboOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, std::vector<Tensor>, Tensor>;
using ElboForward = ElboOutputs (*)(const ElboArguments&, int64_t output_mask);
using ElementsOutputs = std::tuple<Tensor, Tensor, std::vector<Tensor>, Tensor>;
using ElementsForward = ElementsOutputs (*)(const LikelihoodArguments&, int64_t output_mask);
using ElboGradient = GradientOutputs (*)(const LikelihoodArguments&, const Tensor& upstream, int64_t output_mask);

template <const ObjectiveFunctions& functions>
struct CheckedObjective {
  static ElboOutputs forward(const ElboArguments& a, int64_t output_mask) {
    check("elbo_forward", find_error(a));
    check("elbo_forward", find_mask_error(a, output_mask));
    const auto [loss, recon_term, kl_term, gradients] = functions.forward(a, output_mask, TermOutputs::kOwnStorage);
    return std::tuple_cat(std::make_tuple(loss, recon_term, kl_term), to_outputs(gradients, a));
  }

  static ElementsOutputs elements(const LikelihoodArguments& a, int64_t output_mask) {
    check("elements_forward", find_error(a));
    check("elements_forward", find_mask_error(a, output_mask));
    const auto [values, gradients] = functions.elements(a, output_mask);
    return std::tuple_cat(std::make_tuple(values), to_outputs(gradients, a));
  }

  static GradientOutputs gradient(const LikelihoodArguments& a, const Tensor& upstream, int64_t output_mask) {
    check("elbo_gradient", find_error(a));
    check("elbo_gradient", find_upstream_error(a, upstream));
    check("elbo_gradient", find_mask_error(a, output_mask));
    return to_outputs(functions.gradient(a, upstream, output_mask), a);
  }

  static std::tuple<Tensor, Tensor, Tensor> backward_(const ElboArguments& a, const OptionalTensor& gradient,
                                                      at::TensorList parameter_gradients,
                                                      const OptionalTensor& grad_loss, const OptionalTensor& grad_recon,
                                                      const OptionalTensor& grad_kl, bool to_kl) {
    check("elbo_backward_", find_error(a));
    check("elbo_backward_",
          find_gradient_error(a, gradient, parameter_gradients, grad_loss, grad_recon, grad_kl, to_kl));
    auto [mu, scale, kl] = functions.backward_(a, gradient, parameter_gradients, grad_loss, grad_recon, grad_kl, to_kl);
    for (Tensor* const out : {&mu, &scale, &kl}) {
      if (!out->defined()) *out = at::empty({0}, a.recon.options());
    }
    return {mu, scale, kl};
  }
};

template <const ObjectiveFunctions& functions>
void implement_objective(torch::Library& m, c10::DeviceType type) {
  registered<ObjectiveFunctions>(type) = &functions;
  m.impl("elbo_forward", flat<&CheckedObjective<functions>::forward>());
  m.impl("elements_forward", flat<&CheckedObjective<functions>::elements>());
  m.impl("elbo_gradient", flat<&CheckedObjective<functions>::gradient>());
  m.impl("elbo_backward_", flat<&CheckedObjective<functions>::backward_>());
}

}  // namespace pyvae
