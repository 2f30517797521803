// The decoder side's operators, torch.ops.pyvae.*. cpu.cpp, cuda.cpp and meta.cpp implement them, through implement.h;
// autograd.cpp implements the differentiable one.
#include <torch/library.h>

#include <string>

#include "ops/arguments.h"

namespace pyvae {

TORCH_LIBRARY_FRAGMENT(pyvae, m) {
  m.set_python_module("pyvae");
  const std::string likelihood = LikelihoodArguments::kSchema, elbo = ElboArguments::kSchema;
  const std::string gradients = "Tensor gradient, Tensor[] parameter_gradients, Tensor library_gradient";
  // Pure functions of their arguments: a compiler may merge, reorder and recompute them.
  const auto define = [&m](const std::string& schema) { m.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };

  // Differentiable.
  define("elbo(" + elbo + ") -> (Tensor loss, Tensor recon_term, Tensor kl_term)");

  define("elements(" + likelihood + ") -> Tensor");

  // Their building blocks (functions.h documents each).
  define("elbo_forward(" + elbo + ", int output_mask) -> (Tensor loss, Tensor recon_term, Tensor kl_term, " +
         gradients + ")");
  define("elements_forward(" + likelihood + ", int output_mask) -> (Tensor elements, " + gradients + ")");
  define("elbo_gradient(" + likelihood + ", Tensor upstream, int output_mask) -> (" + gradients + ")");
  define("elbo_backward(" + elbo + ", Tensor gradient, Tensor? grad_loss, Tensor? grad_recon) -> Tensor");
  // Only for eager mode: it works in place.
  const std::string backward =
      "elbo_backward_(" + elbo +
      ", Tensor(a!)? gradient, Tensor(b!)[] parameter_gradients, Tensor? grad_loss, Tensor? grad_recon, "
      "Tensor? grad_kl, bool to_kl) -> (Tensor mu_gradient, Tensor scale_gradient, Tensor kl_gradient)";
  m.def(backward.c_str());
}

}  // namespace pyvae
