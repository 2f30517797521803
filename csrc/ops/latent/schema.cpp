// The encoder side's operators, torch.ops.pyvae.*. Their kernels: cpu.cpp, cuda.cpp, meta.cpp behind implement.h, and
// autograd.cpp for the two that differentiate.
#include <torch/library.h>

#include <string>

#include "ops/arguments.h"

namespace pyvae {

TORCH_LIBRARY_FRAGMENT(pyvae, m) {
  m.set_python_module("pyvae");
  const std::string latent = LatentArguments::kSchema;
  // Pure functions of their arguments, the noise included: a compiler may merge, reorder and recompute them. That is
  // why the seed is a tensor drawn outside (two random operators with equal arguments would be merged).
  const auto define = [&m](const std::string& schema, at::Tag tag) { m.def(schema.c_str(), {tag}); };
  const at::Tag pure = at::Tag::pt2_compliant_tag;

  // Differentiable.
  define("reparameterize(" + latent + ", bool with_kl) -> (Tensor z, Tensor kl)", pure);
  define("kl_divergence(" + latent + ", int reduction) -> Tensor", pure);

  // What they are made of (functions.h says what each does).
  define("latent_forward(" + latent + ", bool with_z, bool with_kl, int reduction) -> (Tensor z, Tensor kl)", pure);
  define("latent_backward(" + latent +
             ", Tensor? grad_z, Tensor? grad_kl, bool to_prior) -> (Tensor grad_mu, Tensor grad_scale, "
             "Tensor grad_prior_mean, Tensor grad_prior_scale)",
         pure);
  // For eager mode alone: it advances a generator.
  define("latent_draw(" + latent + ", Generator? generator, bool with_kl) -> (Tensor z, Tensor kl, Tensor seed)",
         at::Tag::nondeterministic_seeded);
}

}  // namespace pyvae
