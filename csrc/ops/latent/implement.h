// Registers a device's functions as the encoder side's operators, with argument checks in front of them.
#pragma once

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/device.h"
#include "ops/latent/checks.h"
#include "ops/latent/functions.h"

namespace pyvae {

template <const LatentFunctions& functions>
struct CheckedLatent {
  static std::tuple<Tensor, Tensor> forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction) {
    check("latent_forward", find_error(a));
    check("latent_forward", with_z ? find_noise_error(a) : nullptr);
    check("latent_forward", find_reduction_error(reduction));
    return functions.forward(a, with_z, with_kl, reduction);
  }

  static std::tuple<Tensor, Tensor, Tensor> draw(const LatentArguments& a,
                                                 const std::optional<at::Generator>& generator, bool with_kl) {
    check("latent_draw", find_error(a));
    check("latent_draw", a.eps || a.seed ? "the seed is drawn" : nullptr);
    return functions.draw(a, generator, with_kl);
  }

  static LatentGradients backward(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                  bool to_prior) {
    check("latent_backward", find_error(a));
    check("latent_backward", find_gradient_error(a, grad_z, grad_kl, to_prior));
    check("latent_backward", grad_z ? find_noise_error(a) : nullptr);
    LatentGradients out = functions.backward(a, grad_z, grad_kl, to_prior);
    if (!to_prior) std::get<2>(out) = at::empty({0}, a.mu.options()), std::get<3>(out) = at::empty({0}, a.mu.options());
    return out;
  }
};

template <const LatentFunctions& functions>
void implement_latent(torch::Library& m, c10::DeviceType type) {
  registered<LatentFunctions>(type) = &functions;
  m.impl("latent_forward", flat<&CheckedLatent<functions>::forward>());
  m.impl("latent_draw", flat<&CheckedLatent<functions>::draw>());
  m.impl("latent_backward", flat<&CheckedLatent<functions>::backward>());
}

}  // namespace pyvae
