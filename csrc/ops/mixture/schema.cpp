// The log density's operators, torch.ops.pyvae.*. Their kernels: cpu.cpp, cuda.cpp, meta.cpp behind implement.h, and
// autograd.cpp for the one that differentiates.
#include <torch/library.h>

#include <string>

#include "ops/arguments.h"

namespace pyvae {

TORCH_LIBRARY_FRAGMENT(pyvae, m) {
  const std::string mixture = MixtureArguments::kSchema;
  const auto define = [&m](const std::string& schema) { m.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };

  // Differentiable.
  define("mixture_log_prob(" + mixture + ", bool elements) -> Tensor");

  // What it is made of (functions.h says what each does).
  define("mixture_forward(" + mixture +
         ", bool elements, bool with_normalizers) -> (Tensor values, Tensor normalizers)");
  define("mixture_backward(" + mixture +
         ", Tensor normalizers, Tensor grad, bool elements, bool to_mixture) -> (Tensor grad_z, Tensor grad_mean, "
         "Tensor grad_scale, Tensor grad_logits)");
}

}  // namespace pyvae
