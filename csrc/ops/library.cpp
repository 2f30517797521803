// The operators' schemas, torch.ops.pyvae.*. Kernels: implement.h for each device and for shapes alone (meta.cpp),
// autograd/ for the three that differentiate.
#include <torch/library.h>

#include <array>
#include <string>

#include "ops/autograd/function.h"

namespace pyvae {

const Device*& device_of(c10::DeviceType type) {
  static std::array<const Device*, c10::COMPILE_TIME_MAX_DEVICE_TYPES> devices{};
  return devices[size_t(type)];
}

ReferenceGradient& reference_gradient() {
  static ReferenceGradient function = [](const ReferenceCall& call) -> variable_list {
    TORCH_CHECK(false, "pyvae::", call.name, ": this gradient needs the Python package; import pyvae first");
  };
  return function;
}

TORCH_LIBRARY(pyvae, m) {
  m.set_python_module("pyvae");
  const std::string latent = LatentArguments::kSchema, likelihood = LikelihoodArguments::kSchema;
  const std::string elbo = likelihood + ", " + ElboArguments::kSchema;
  const std::string gradients =
      "Tensor gradient, Tensor parameter_gradient, Tensor second_parameter_gradient, Tensor library_gradient";
  // Pure functions of their arguments, the noise included: a compiler may merge, reorder and recompute them. That is
  // why the seed is a tensor drawn outside (two random operators with equal arguments would be merged).
  const std::vector<at::Tag> pure = {at::Tag::pt2_compliant_tag}, drawn = {at::Tag::nondeterministic_seeded};

  const auto define = [&m](const std::string& schema, const std::vector<at::Tag>& tags) {
    m.def(schema.c_str(), tags);
  };

  // Differentiable.
  define("reparameterize(" + latent + ", bool with_kl) -> (Tensor z, Tensor kl)", pure);
  define("kl_divergence(" + latent + ", int reduction) -> Tensor", pure);
  define("elbo(" + elbo + ") -> (Tensor loss, Tensor recon_term, Tensor kl_term)", pure);

  // What they are made of (device.h says what each does).
  define("latent_forward(" + latent + ", bool with_z, bool with_kl, int reduction) -> (Tensor z, Tensor kl)", pure);
  define("latent_backward(" + latent +
             ", Tensor? grad_z, Tensor? grad_kl, bool to_prior) -> (Tensor grad_mu, Tensor grad_scale, "
             "Tensor grad_prior_mean, Tensor grad_prior_scale)",
         pure);
  define(
      "elbo_forward(" + elbo + ", int wanted) -> (Tensor loss, Tensor recon_term, Tensor kl_term, " + gradients + ")",
      pure);
  define("elbo_gradient(" + likelihood + ", Tensor upstream, int wanted) -> (" + gradients + ")", pure);

  define("elbo_backward(" + elbo + ", Tensor gradient, Tensor? grad_loss, Tensor? grad_recon) -> Tensor", pure);

  // For eager mode alone: the first advances a generator, the second works in place.
  define("latent_draw(" + latent + ", Generator? generator, bool with_kl) -> (Tensor z, Tensor kl, Tensor seed)",
         drawn);
  define("elbo_backward_(" + elbo +
             ", Tensor(a!)? gradient, Tensor? grad_loss, Tensor? grad_recon, Tensor? grad_kl, bool to_kl) -> Tensor",
         {});
}

}  // namespace pyvae
