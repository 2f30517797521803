// The operators' schemas: torch.ops.pyvae.*. Their kernels are registered beside their code, in latent.cpp and
// objective.cpp.
#include "ops/autograd.h"

namespace pyvae {

ReferenceGradient& reference_gradient() {
  static ReferenceGradient function = [](const ReferenceCall& call) -> variable_list {
    TORCH_CHECK(false, "pyvae::", call.name, ": this gradient needs the Python package; import pyvae first");
  };
  return function;
}

TORCH_LIBRARY(pyvae, m) {
  m.set_python_module("pyvae");
  // Pure functions of their arguments, the noise included: a compiler may merge, reorder and recompute them. That is
  // why the seed is a tensor drawn outside (two random operators with equal arguments would be merged).
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def(
      "reparameterize(Tensor mu, Tensor scale, Tensor? eps, Tensor? seed, int scale_kind, SymInt row_offset, "
      "bool with_kl) -> (Tensor z, Tensor kl)",
      tags);
  m.def("kl_divergence(Tensor mu, Tensor scale, int scale_kind, int reduction) -> Tensor", tags);
  m.def(
      "elbo(Tensor recon, Tensor target, Tensor? mu, Tensor? scale, Tensor? kl, Tensor? weight, Tensor? pos_weight, "
      "Tensor? beta_tensor, float beta, int likelihood, int scale_kind, int reduction) "
      "-> (Tensor loss, Tensor recon_term, Tensor kl_term)",
      tags);
  m.def(
      "latent_forward(Tensor mu, Tensor scale, Tensor? eps, Tensor? seed, int scale_kind, SymInt row_offset, "
      "bool with_z, bool with_kl, int reduction) -> (Tensor z, Tensor kl)",
      tags);
  m.def(
      "latent_backward(Tensor? grad_z, Tensor? grad_kl, Tensor mu, Tensor scale, Tensor? eps, Tensor? seed, "
      "int scale_kind, SymInt row_offset) -> (Tensor grad_mu, Tensor grad_scale)",
      tags);
  m.def(
      "elbo_forward(Tensor recon, Tensor target, Tensor? mu, Tensor? scale, Tensor? kl, Tensor? weight, "
      "Tensor? pos_weight, Tensor? beta_tensor, float beta, int likelihood, int scale_kind, int reduction, "
      "bool with_gradient) -> (Tensor loss, Tensor recon_term, Tensor kl_term, Tensor gradient)",
      tags);
  m.def(
      "elbo_gradient(Tensor recon, Tensor target, Tensor? weight, Tensor? pos_weight, Tensor upstream, int likelihood) "
      "-> Tensor",
      tags);
  const std::vector<at::Tag> drawn = {at::Tag::nondeterministic_seeded};
  m.def(
      "latent_draw(Tensor mu, Tensor scale, Generator? generator, int scale_kind, SymInt row_offset, bool with_kl) "
      "-> (Tensor z, Tensor kl, Tensor seed)",
      drawn);
  m.def(
      "elbo_backward(Tensor(a!)? gradient, Tensor recon, Tensor target, Tensor? weight, Tensor? pos_weight, "
      "Tensor? grad_loss, Tensor? grad_recon, Tensor? grad_kl, Tensor? beta_tensor, float beta, int likelihood, "
      "int reduction, ScalarType? kl_type) -> Tensor");
}

}  // namespace pyvae
