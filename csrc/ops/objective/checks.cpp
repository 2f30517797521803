#include "ops/objective/checks.h"

#include <ATen/ExpandUtils.h>
#include <ATen/MemoryOverlap.h>

#include "ops/latent/checks.h"
#include "ops/objective/gradients.h"

namespace pyvae {

namespace {

bool is_flattened_form(const Tensor& flat, const Tensor& full) {
  return flat.dim() == 2 && full.dim() >= 1 && flat.sym_size(0) == full.sym_size(0) &&
         flat.sym_numel() == full.sym_numel();
}

// Whether recon has several rows per row of target: all rows of the first sample, then all of the second ...
bool are_samples(const Tensor& recon, const Tensor& target) {
  if (recon.dim() != target.dim() || recon.dim() == 0) return false;
  return recon.sym_sizes().slice(1) == target.sym_sizes().slice(1) && target.sym_size(0) > 0 &&
         recon.sym_size(0) > target.sym_size(0) && recon.sym_size(0) % target.sym_size(0) == 0;
}

// A factor for recon's elements: weight or pos_weight.
const char* find_factor_error(const OptionalTensor& factor, const Tensor& recon) {
  if (!factor) return nullptr;
  if (!is_factor_type(factor->scalar_type())) return "weights must be floating or bool";
  if (!is_at_hand(*factor, recon)) return "weights must be on recon's device";
  if (!at::is_expandable_to(factor->sym_sizes(), recon.sym_sizes())) return "weights must be broadcastable to recon";
  return nullptr;
}

const char* find_parameter_error(const LikelihoodArguments& a) {
  if (int64_t(a.parameters.size()) != kTraits.values[a.likelihood].parameters)
    return "the likelihood has another number of parameters";
  for (const OptionalTensor& parameter : a.parameters) {
    if (!parameter) return "the likelihood has another number of parameters";
    if (!is_supported_type(parameter->scalar_type())) return "parameters must be floating";
    if (parameter->device() != a.recon.device()) return "parameters must be on recon's device";
    if (!at::is_expandable_to(parameter->sym_sizes(), a.recon.sym_sizes())) return "parameters must broadcast to recon";
  }
  return nullptr;
}

const char* find_library_error(const LikelihoodArguments& a) {
  if (!a.log_library) return nullptr;
  const Tensor& library = *a.log_library;
  if (kTraits[a.likelihood].softmax != Softmax::kOptional) return "this likelihood takes no log_library";
  if (!is_supported_type(library.scalar_type())) return "log_library must be floating";
  if (library.device() != a.recon.device()) return "log_library must be on recon's device";
  const bool per_row = library.dim() == 1 || (library.dim() == 2 && library.sym_size(1) == 1);
  if (!per_row || library.sym_size(0) != a.recon.sym_size(0)) return "log_library must have shape (B,) or (B, 1)";
  return nullptr;
}

}  // namespace

const char* find_error(const LikelihoodArguments& a) {
  if (!is_supported_type(a.recon.scalar_type())) return "recon must be floating";
  if (!is_data_type(a.target.scalar_type())) return "target must be floating, bool or an integer of 8 to 64 bits";
  if (a.recon.dim() == 0) return "recon must have a batch dimension";
  if (a.recon.device() != a.target.device()) return "recon and target must be on one device";
  if (a.recon.sym_sizes() != a.target.sym_sizes() && !is_flattened_form(a.recon, a.target) &&
      !is_flattened_form(a.target, a.recon) && !are_samples(a.recon, a.target)) {
    return "recon and target must have one shape, or one of them be the flattened form, or recon hold samples";
  }
  if (a.likelihood < 0 || a.likelihood >= Likelihoods::kCount) return "unknown likelihood";
  if (a.pos_weight && !kTraits.values[a.likelihood].takes_pos_weight) return "this likelihood takes no pos_weight";
  if (const char* error = find_parameter_error(a)) return error;
  if (const char* error = find_library_error(a)) return error;
  if (const char* error = find_factor_error(a.weight, a.recon)) return error;
  return find_factor_error(a.pos_weight, a.recon);
}

const char* find_error(const ElboArguments& a) {
  if (const char* error = find_error(static_cast<LikelihoodArguments>(a))) return error;
  if (a.reduction < 0 || a.reduction >= kReductions) return "unknown reduction";
  if (a.scale_kind < 0 || a.scale_kind >= Scales::kCount) return "unknown scale";
  if (a.mu.has_value() != a.scale.has_value()) return "mu and scale go together";
  if (a.mu && a.kl) return "either mu and scale or kl";
  if (a.mu) {
    if (const char* error = find_error(a.posterior())) return error;
    if (a.mu->sym_size(0) != a.recon.sym_size(0)) return "mu must have recon's batch size";
    if (a.mu->device() != a.recon.device()) return "mu must be on recon's device";
  }
  if (a.kl) {
    if (a.kl->scalar_type() != at::kFloat && a.kl->scalar_type() != at::kDouble) return "kl must be float32 or float64";
    if (!is_per_row(*a.kl, a.recon, /*scalar=*/false)) return "kl must have shape (B,), on recon's device";
  }
  if (a.beta_tensor && (a.beta_tensor->dim() != 0 || !is_supported_type(a.beta_tensor->scalar_type())))
    return "beta must be a scalar";
  if (a.beta_tensor && !is_at_hand(*a.beta_tensor, a.recon)) return "beta must be on recon's device";
  return nullptr;
}

const char* find_upstream_error(const LikelihoodArguments& a, const Tensor& upstream) {
  return is_per_row(upstream, a.recon, /*scalar=*/false) ? nullptr : "upstream must have shape (B,), on recon's device";
}

const char* find_mask_error(const LikelihoodArguments& a, int64_t output_mask) {
  const int64_t places = kGradParameter + int64_t(a.parameters.size());
  if (output_mask < 0 || output_mask >> places != 0) return "output_mask has a bit of an unknown gradient";
  return is_set(output_mask, kGradLogLibrary) && !a.log_library ? "output_mask has the bit of an absent log_library"
                                                                : nullptr;
}

const char* find_gradient_error(const ElboArguments& a, const OptionalTensor& gradient,
                                at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl) {
  if (gradient && (gradient->sym_sizes() != a.recon.sym_sizes() || gradient->scalar_type() != a.recon.scalar_type() ||
                   gradient->device() != a.recon.device())) {
    return "gradient must be as recon";
  }
  if (gradient && at::has_internal_overlap(*gradient) == at::MemOverlap::Yes)
    return "gradient is written in place, so its elements must have memory of their own";
  for (const Tensor& other : parameter_gradients) {
    // 16-bit numbers would have been rounded before the upstream gradient is known.
    if (!is_supported_type(other.scalar_type()) || at::elementSize(other.scalar_type()) == 2)
      return "parameter_gradients must be float32 or float64";
    if (other.device() != a.recon.device()) return "parameter_gradients must be on recon's device";
    if (at::has_internal_overlap(other) == at::MemOverlap::Yes)
      return "parameter_gradients are written in place, so their elements must have memory of their own";
  }
  if (!parameter_gradients.empty() && a.reduction == kNone) return "parameter_gradients must come with a reduction";
  for (const OptionalTensor* upstream : {&grad_loss, &grad_recon, &grad_kl}) {
    if (*upstream && !is_per_row(**upstream, a.recon, /*scalar=*/a.reduction != kNone))
      return "upstream gradients must have shape (B,) without reduction, else ()";
  }
  if ((gradient || !parameter_gradients.empty()) && !grad_loss && !grad_recon)
    return "grad_loss or grad_recon must be given with gradient or parameter_gradients";
  if (to_kl && !grad_loss && !grad_kl) return "grad_loss or grad_kl must be given for the gradient of the KL";
  return nullptr;
}

}  // namespace pyvae
