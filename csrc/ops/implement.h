// Registers a device: its functions as the operators' kernels, behind the refusals.
#pragma once

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/device.h"
#include "ops/refuse.h"
#include "ops/types.h"

namespace pyvae {

inline void check(const char* name, const char* refusal) {
  TORCH_CHECK_VALUE(!refusal, "pyvae::", name, ": ", refusal);
}

template <const Device& device>
struct Checked {
  static std::tuple<Tensor, Tensor> latent_forward(const LatentArguments& a, bool with_z, bool with_kl,
                                                   int64_t reduction) {
    check("latent_forward", refuse(a));
    check("latent_forward", with_z && !a.eps && !a.seed ? "either eps or seed must be given" : nullptr);
    check("latent_forward", reduction < 0 || reduction >= kDivergenceReductions ? "unknown reduction" : nullptr);
    return device.latent_forward(a, with_z, with_kl, reduction);
  }

  static std::tuple<Tensor, Tensor, Tensor> latent_draw(const LatentArguments& a,
                                                        const std::optional<at::Generator>& generator, bool with_kl) {
    check("latent_draw", refuse(a));
    check("latent_draw", a.eps || a.seed ? "the seed is drawn" : nullptr);
    return device.latent_draw(a, generator, with_kl);
  }

  static LatentGradients latent_backward(const LatentArguments& a, const OptionalTensor& grad_z,
                                         const OptionalTensor& grad_kl, bool to_prior) {
    check("latent_backward", refuse(a));
    check("latent_backward", refuse_gradients(a, grad_z, grad_kl, to_prior));
    check("latent_backward", grad_z && !a.eps && !a.seed ? "either eps or seed must be given" : nullptr);
    LatentGradients out = device.latent_backward(a, grad_z, grad_kl, to_prior);
    if (!to_prior) std::get<2>(out) = at::empty({0}, a.mu.options()), std::get<3>(out) = at::empty({0}, a.mu.options());
    return out;
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> elbo_forward(const ElboArguments& a,
                                                                                         int64_t wanted) {
    check("elbo_forward", refuse(a));
    check("elbo_forward", refuse_wanted(a, wanted));
    const auto [loss, recon_term, kl_term, gradients] = device.elbo_forward(a, wanted, Breakdown::kApart);
    return std::tuple_cat(std::make_tuple(loss, recon_term, kl_term), to_tuple(gradients, a.recon));
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_gradient(const LikelihoodArguments& a, const Tensor& upstream,
                                                                  int64_t wanted) {
    check("elbo_gradient", refuse(a));
    check("elbo_gradient", refuse_upstream(a, upstream));
    check("elbo_gradient", refuse_wanted(a, wanted));
    return to_tuple(device.elbo_gradient(a, upstream, wanted), a.recon);
  }

  static Tensor elbo_backward_(const ElboArguments& a, const OptionalTensor& gradient, const OptionalTensor& grad_loss,
                               const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl) {
    check("elbo_backward_", refuse(a));
    check("elbo_backward_", refuse_gradients(a, gradient, grad_loss, grad_recon, grad_kl, to_kl));
    return device.elbo_backward_(a, gradient, grad_loss, grad_recon, grad_kl, to_kl);
  }
};

template <const Device& device>
void implement(torch::Library& m, c10::DeviceType type) {
  device_of(type) = &device;
  m.impl("latent_forward", flat<&Checked<device>::latent_forward>());
  m.impl("latent_draw", flat<&Checked<device>::latent_draw>());
  m.impl("latent_backward", flat<&Checked<device>::latent_backward>());
  m.impl("elbo_forward", flat<&Checked<device>::elbo_forward>());
  m.impl("elbo_gradient", flat<&Checked<device>::elbo_gradient>());
  m.impl("elbo_backward_", flat<&Checked<device>::elbo_backward_>());
}

}  // namespace pyvae
