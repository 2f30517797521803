#include "ops/mixture/checks.h"

#include "ops/mixture/functions.h"

namespace pyvae {

const char* find_error(const MixtureArguments& a) {
  const Tensor* const given[] = {&a.z, &a.mean, &a.scale, a.logits ? &*a.logits : &a.mean};
  for (const Tensor* const tensor : given) {
    if (!is_supported_type(tensor->scalar_type())) return "z, mean, scale and logits must be floating";
    if (tensor->device() != a.z.device()) return "z, mean, scale and logits must be on one device";
  }
  const int64_t dims = a.mean.dim();
  if (dims != 2 && dims != 3) return "mean must have shape (K, L) or (B, K, L)";
  if (a.mean.sym_sizes() != a.scale.sym_sizes()) return "mean and scale must have one shape";
  if (a.mean.sym_size(-2) == 0) return "there must be a component";
  if (a.z.dim() < 2 || a.z.sym_size(-1) != a.mean.sym_size(-1)) return "z must have shape (..., B, L)";
  if (dims == 3 && a.z.sym_size(-2) != a.mean.sym_size(0)) return "z must have as many samples as mean";
  if (a.logits && a.logits->sym_sizes() != a.mean.sym_sizes().slice(0, size_t(dims - 1)))
    return "logits must have shape (K,) or (B, K)";
  if (a.scale_kind < 0 || a.scale_kind >= Scales::kCount) return "unknown scale";
  if (const char* error = find_range_error(a.low, a.high)) return error;
  if (a.is_clamped() && a.scale_kind != kCode<LogVariance, Scales>) return "only a logvar is clamped";
  return nullptr;
}

const char* find_gradient_error(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad,
                                bool elements) {
  const auto sizes = a.z.sym_sizes().slice(0, size_t(a.z.dim() - (elements ? 0 : 1)));
  for (const Tensor* const tensor : {&normalizers, &grad}) {
    if (tensor->device() != a.z.device() || !is_supported_type(tensor->scalar_type()))
      return "normalizers and grad must be on z's device, and be floating";
  }
  if (grad.sym_sizes() != sizes) return "grad must have the result's shape";
  if (!has_normalizers(a)) return nullptr;
  if (normalizers.dim() != grad.dim() + 1 || normalizers.sym_size(0) != 2 || normalizers.sym_sizes().slice(1) != sizes)
    return "normalizers must have shape (2, ...), of the result's";
  return nullptr;
}

}  // namespace pyvae
