// The encoder side's operators, torch.ops.pyvae.*. cpu.cpp, cuda.cpp and meta.cpp implement them, through implement.h;
// autograd.cpp implements the two differentiable ones.
#include <torch/library.h>

#include <string>

#include "ops/arguments.h"

namespace pyvae {

TORCH_LIBRARY_FRAGMENT(pyvae, m) {
  m.set_python_module("pyvae");
  const std::string latent = LatentArguments::kSchema;
  // Pure functions of their arguments, including the noise: a compiler may merge, reorder and recompute them. That is
  // why the seed is a tensor drawn outside (a compiler would merge two random operators with equal arguments).
  const auto define = [&m](const std::string& schema, at::Tag tag) { m.def(schema.c_str(), {tag}); };
  const at::Tag pure = at::Tag::pt2_compliant_tag;

  // Differentiable.
  define("reparameterize(" + latent + ", bool with_kl) -> (Tensor z, Tensor kl)", pure);
  define("kl_divergence(" + latent + ", int reduction) -> Tensor", pure);

  // Their building blocks (functions.h documents each).
  define("latent_forward(" + latent + ", bool with_z, bool with_kl, int reduction) -> (Tensor z, Tensor kl)", pure);
  define("latent_backward(" + latent +
             ", Tensor? grad_z, Tensor? grad_kl, bool to_prior) -> (Tensor grad_mu, Tensor grad_scale, "
             "Tensor grad_prior_mean, Tensor grad_prior_scale)",
         pure);
  // Only for eager mode: it advances a generator.
  define("latent_draw(" + latent + ", Generator? generator, bool with_kl) -> (Tensor z, Tensor kl, Tensor seed)",
         at::Tag::nondeterministic_seeded);
}

}  // namespace pyvae
