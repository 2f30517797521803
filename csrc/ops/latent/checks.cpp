#include "ops/latent/checks.h"

#include <ATen/ExpandUtils.h>

namespace pyvae {

namespace {

// Whether an element's index, (row_offset + row) * features + column, may exceed 2^63. Symbolic sizes are not checked.
bool counts_too_far(const LatentArguments& a) {
  const auto offset = a.row_offset.maybe_as_int(), rows = a.mu.sym_size(0).maybe_as_int(),
             count = a.mu.sym_numel().maybe_as_int();
  if (!offset || !rows || !count || *offset == 0 || *count == 0) return false;
  if (*offset < 0) return true;
  int64_t past = 0;
  return __builtin_add_overflow(*offset, *rows, &past) || __builtin_mul_overflow(past, *count / *rows, &past);
}

// The mean or the scale of a prior.
const char* find_prior_error(const OptionalTensor& part, const Tensor& mu) {
  if (!part) return nullptr;
  if (!is_supported_type(part->scalar_type())) return "the prior must be floating";
  if (part->device() != mu.device()) return "the prior must be on mu's device";
  if (!at::is_expandable_to(part->sym_sizes(), mu.sym_sizes())) return "the prior must be broadcastable to mu";
  return nullptr;
}

}  // namespace

const char* find_error(const LatentArguments& a) {
  if (!is_supported_type(a.mu.scalar_type()) || !is_supported_type(a.scale.scalar_type()))
    return "mu and scale must be floating";
  if (a.mu.dim() == 0) return "mu must have a batch dimension";
  if (a.mu.sym_sizes() != a.scale.sym_sizes()) return "mu and scale must have one shape";
  if (a.mu.device() != a.scale.device()) return "mu and scale must be on one device";
  if (a.scale_kind < 0 || a.scale_kind >= Scales::kCount) return "unknown scale";
  if (a.samples.maybe_as_int().value_or(0) < 0) return "samples must be 0 or more";
  if (a.eps) {
    if (!is_supported_type(a.eps->scalar_type())) return "eps must be floating";
    if (a.eps->sym_sizes() != c10::SymIntArrayRef(sample_sizes(a))) return "eps must have the sample's shape";
    if (a.eps->device() != a.mu.device()) return "eps must be on mu's device";
  }
  if (a.seed) {
    if (a.seed->scalar_type() != at::kLong || a.seed->sym_numel() != 1) return "seed must be one int64";
    if (a.seed->device() != a.mu.device() && !a.seed->is_cpu()) return "seed must be on mu's device or on the CPU";
  }
  if (counts_too_far(a)) return "row_offset is too large: elements are counted in 63 bits";
  if (a.prior_mean.has_value() != a.prior_scale.has_value()) return "the prior's mean and scale go together";
  if (const char* error = find_range_error(a.low, a.high)) return error;
  if (a.is_clamped() && a.scale_kind != kCode<LogVariance, Scales>) return "only a logvar is clamped";
  if (const char* error = find_prior_error(a.prior_mean, a.mu)) return error;
  return find_prior_error(a.prior_scale, a.mu);
}

const char* find_noise_error(const LatentArguments& a) {
  return !a.eps && !a.seed ? "either eps or seed must be given" : nullptr;
}

const char* find_reduction_error(int64_t reduction) {
  return reduction < 0 || reduction >= kDivergenceReductions ? "unknown reduction" : nullptr;
}

const char* find_gradient_error(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                                bool to_prior) {
  const auto fits = [&a](const Tensor& grad, c10::SymIntArrayRef sizes) {
    return grad.sym_sizes() == sizes && grad.device() == a.mu.device() && is_supported_type(grad.scalar_type());
  };
  if (grad_z && !fits(*grad_z, sample_sizes(a))) return "grad_z must have z's shape, on mu's device, and be floating";
  if (grad_kl && !is_per_row(*grad_kl, a.mu, /*scalar=*/grad_kl->dim() == 0) && !fits(*grad_kl, a.mu.sym_sizes()))
    return "grad_kl must have shape (B,), () or mu's, on mu's device";
  if (to_prior && (!a.prior_mean || !grad_kl)) return "a prior and grad_kl must be given for the prior's gradient";
  return nullptr;
}

}  // namespace pyvae
