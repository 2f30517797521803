#include "ops/refuse.h"

#include <ATen/ExpandUtils.h>
#include <ATen/MemoryOverlap.h>

#include "ops/codes.h"
#include "ops/gradients.h"
#include "ops/types.h"

namespace pyvae {

namespace {

bool is_flattened_form(const Tensor& flat, const Tensor& full) {
  return flat.dim() == 2 && full.dim() >= 1 && flat.sym_size(0) == full.sym_size(0) &&
         flat.sym_numel() == full.sym_numel();
}

// On the other's device, or a number on the CPU, which goes with any device.
bool is_at_hand(const Tensor& factor, const Tensor& other) {
  return factor.device() == other.device() || (factor.dim() == 0 && factor.is_cpu());
}

// A factor on recon's elements: weight or pos_weight.
const char* refuse_factor(const OptionalTensor& factor, const Tensor& recon) {
  if (!factor) return nullptr;
  if (!is_factor_type(factor->scalar_type())) return "weights must be floating or bool";
  if (!is_at_hand(*factor, recon)) return "weights must be on recon's device";
  if (!at::is_expandable_to(factor->sym_sizes(), recon.sym_sizes())) return "weights must be broadcastable to recon";
  return nullptr;
}

// Whether the index of an element, (row_offset + row) * features + column, may pass 2^63; symbols are taken on trust.
bool counts_too_far(const LatentArguments& a) {
  const auto offset = a.row_offset.maybe_as_int(), rows = a.mu.sym_size(0).maybe_as_int(),
             count = a.mu.sym_numel().maybe_as_int();
  if (!offset || !rows || !count || *offset == 0 || *count == 0) return false;
  if (*offset < 0) return true;
  int64_t past = 0;
  return __builtin_add_overflow(*offset, *rows, &past) || __builtin_mul_overflow(past, *count / *rows, &past);
}

// The mean or the scale of a prior.
const char* refuse_prior(const OptionalTensor& part, const Tensor& mu) {
  if (!part) return nullptr;
  if (!is_supported_type(part->scalar_type())) return "the prior must be floating";
  if (part->device() != mu.device()) return "the prior must be on mu's device";
  if (!at::is_expandable_to(part->sym_sizes(), mu.sym_sizes())) return "the prior must be broadcastable to mu";
  return nullptr;
}

// One number per row of `like`, or (`scalar`) one for all of them.
bool is_per_row(const Tensor& numbers, const Tensor& like, bool scalar) {
  if (!is_supported_type(numbers.scalar_type()) || numbers.device() != like.device()) return false;
  return scalar ? numbers.dim() == 0 : numbers.dim() == 1 && numbers.sym_size(0) == like.sym_size(0);
}

// A parameter of the likelihood, its first or its second.
const char* refuse_parameter(const OptionalTensor& parameter, bool expected, const Tensor& recon) {
  if (parameter.has_value() != expected) return "the likelihood has another number of parameters";
  if (!parameter) return nullptr;
  if (!is_supported_type(parameter->scalar_type())) return "parameters must be floating";
  if (parameter->device() != recon.device()) return "parameters must be on recon's device";
  if (!at::is_expandable_to(parameter->sym_sizes(), recon.sym_sizes())) return "parameters must broadcast to recon";
  return nullptr;
}

const char* refuse_library(const LikelihoodArguments& a) {
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

const char* refuse(const LatentArguments& a) {
  if (!is_supported_type(a.mu.scalar_type()) || !is_supported_type(a.scale.scalar_type()))
    return "mu and scale must be floating";
  if (a.mu.dim() == 0) return "mu must have a batch dimension";
  if (a.mu.sym_sizes() != a.scale.sym_sizes()) return "mu and scale must have one shape";
  if (a.mu.device() != a.scale.device()) return "mu and scale must be on one device";
  if (a.scale_kind < 0 || a.scale_kind >= Scales::kCount) return "unknown scale";
  if (a.eps) {
    if (!is_supported_type(a.eps->scalar_type())) return "eps must be floating";
    if (a.eps->sym_sizes() != a.mu.sym_sizes()) return "eps must have mu's shape";
    if (a.eps->device() != a.mu.device()) return "eps must be on mu's device";
  }
  if (a.seed) {
    if (a.seed->scalar_type() != at::kLong || a.seed->sym_numel() != 1) return "seed must be one int64";
    if (a.seed->device() != a.mu.device() && !a.seed->is_cpu()) return "seed must be on mu's device or on the CPU";
  }
  if (counts_too_far(a)) return "row_offset is too large: elements are counted in 63 bits";
  if (a.prior_mean.has_value() != a.prior_scale.has_value()) return "the prior's mean and scale go together";
  for (const OptionalTensor* bound : {&a.low, &a.high}) {
    if (!*bound) continue;
    if ((*bound)->dim() != 0 || !is_supported_type((*bound)->scalar_type())) return "low and high must be scalars";
    if (!(*bound)->is_cpu() && !(*bound)->is_meta()) return "low and high must be on the CPU";  // meta: a tracer's
  }
  if (a.is_clamped() && a.scale_kind != kCode<LogVariance, Scales>) return "only a logvar is clamped";
  if (const char* refusal = refuse_prior(a.prior_mean, a.mu)) return refusal;
  return refuse_prior(a.prior_scale, a.mu);
}

const char* refuse(const LikelihoodArguments& a) {
  if (!is_supported_type(a.recon.scalar_type())) return "recon must be floating";
  if (!is_data_type(a.target.scalar_type())) return "target must be floating, bool or an integer of 8 to 64 bits";
  if (a.recon.dim() == 0) return "recon must have a batch dimension";
  if (a.recon.device() != a.target.device()) return "recon and target must be on one device";
  if (a.recon.sym_sizes() != a.target.sym_sizes() && !is_flattened_form(a.recon, a.target) &&
      !is_flattened_form(a.target, a.recon)) {
    return "recon and target must have one shape, or one of them be the flattened form";
  }
  if (a.likelihood < 0 || a.likelihood >= Likelihoods::kCount) return "unknown likelihood";
  const Trait& trait = kTraits.values[a.likelihood];
  if (a.pos_weight && !trait.takes_pos_weight) return "this likelihood takes no pos_weight";
  if (const char* refusal = refuse_parameter(a.parameter, trait.parameters > 0, a.recon)) return refusal;
  if (const char* refusal = refuse_parameter(a.second_parameter, trait.parameters > 1, a.recon)) return refusal;
  if (const char* refusal = refuse_library(a)) return refusal;
  if (const char* refusal = refuse_factor(a.weight, a.recon)) return refusal;
  return refuse_factor(a.pos_weight, a.recon);
}

const char* refuse(const ElboArguments& a) {
  if (const char* refusal = refuse(static_cast<const LikelihoodArguments&>(a))) return refusal;
  if (a.reduction < 0 || a.reduction >= kReductions) return "unknown reduction";
  if (a.scale_kind < 0 || a.scale_kind >= Scales::kCount) return "unknown scale";
  if (a.mu.has_value() != a.scale.has_value()) return "mu and scale go together";
  if (a.mu && a.kl) return "either mu and scale or kl";
  if (a.mu) {
    if (const char* refusal = refuse(LatentArguments{*a.mu, *a.scale, kAbsent, kAbsent, a.scale_kind, 0})) {
      return refusal;
    }
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

const char* refuse_gradients(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                             bool to_prior) {
  const auto is_as_mu = [&a](const Tensor& grad) {
    return grad.sym_sizes() == a.mu.sym_sizes() && grad.device() == a.mu.device() &&
           is_supported_type(grad.scalar_type());
  };
  if (grad_z && !is_as_mu(*grad_z)) return "grad_z must have mu's shape and device, and be floating";
  if (grad_kl && !is_per_row(*grad_kl, a.mu, /*scalar=*/grad_kl->dim() == 0) && !is_as_mu(*grad_kl))
    return "grad_kl must have shape (B,), () or mu's, on mu's device";
  if (to_prior && (!a.prior_mean || !grad_kl)) return "a prior and grad_kl must be given for the prior's gradient";
  return nullptr;
}

const char* refuse_upstream(const LikelihoodArguments& a, const Tensor& upstream) {
  return is_per_row(upstream, a.recon, /*scalar=*/false) ? nullptr : "upstream must have shape (B,), on recon's device";
}

const char* refuse_wanted(const LikelihoodArguments& a, int64_t wanted) {
  if (wanted < 0 || wanted >> kGradients != 0) return "unknown gradients are wanted";
  const bool absent = (wants(wanted, kOfParameter) && !a.parameter) ||
                      (wants(wanted, kOfSecondParameter) && !a.second_parameter) ||
                      (wants(wanted, kOfLibrary) && !a.log_library);
  return absent ? "a gradient is wanted by what is absent" : nullptr;
}

const char* refuse_gradients(const ElboArguments& a, const OptionalTensor& gradient, const OptionalTensor& grad_loss,
                             const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl) {
  if (gradient && (gradient->sym_sizes() != a.recon.sym_sizes() || gradient->scalar_type() != a.recon.scalar_type() ||
                   gradient->device() != a.recon.device())) {
    return "gradient must be as recon";
  }
  if (gradient && at::has_internal_overlap(*gradient) == at::MemOverlap::Yes)
    return "gradient is written in place, so its elements must have memory of their own";
  for (const OptionalTensor* upstream : {&grad_loss, &grad_recon, &grad_kl}) {
    if (*upstream && !is_per_row(**upstream, a.recon, /*scalar=*/a.reduction != kNone))
      return "upstream gradients must have shape (B,) without reduction, else ()";
  }
  if (gradient && !grad_loss && !grad_recon) return "grad_loss or grad_recon must be given with gradient";
  if (to_kl && !grad_loss && !grad_kl) return "grad_loss or grad_kl must be given for the gradient of the KL";
  return nullptr;
}

}  // namespace pyvae
