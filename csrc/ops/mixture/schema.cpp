// The log density's operators, torch.ops.pyvae.*. cpu.cpp, cuda.cpp and meta.cpp implement them, through implement.h;
// autograd.cpp implements the differentiable one.
#include <torch/library.h>

#include <string>

#include "ops/arguments.h"

namespace pyvae {

TORCH_LIBRARY_FRAGMENT(pyvae, m) {
  const std::string mixture = MixtureArguments::kSchema;
  const auto define = [&m](const std::string& schema) { m.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };

  // Differentiable.
  define("mixture_log_prob(" + mixture + ", bool elements) -> Tensor");

  // Its building blocks (functions.h documents each).
  define("mixture_forward(" + mixture +
         ", bool elements, bool with_normalizers) -> (Tensor values, Tensor normalizers)");
  define("mixture_backward(" + mixture +
         ", Tensor normalizers, Tensor grad, bool elements, bool to_mixture) -> (Tensor grad_z, Tensor grad_mean, "
         "Tensor grad_scale, Tensor grad_logits)");
}

}  // namespace pyvae
