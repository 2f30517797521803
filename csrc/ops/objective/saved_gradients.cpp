#include "ops/objective/saved_gradients.h"

#include <ATen/SavedTensorHooks.h>

#include <algorithm>

#include "ops/autograd.h"
#include "ops/codes.h"
#include "ops/objective/implement.h"

namespace pyvae {

bool is_in_16_bits(const Tensor& tensor) { return at::elementSize(tensor.scalar_type()) <= 2; }
static bool is_in_16_bits(const OptionalTensor& tensor) { return tensor && is_in_16_bits(*tensor); }

Gradients compute_gradients(const LikelihoodArguments& a, const ObjectiveFunctions* functions, const Tensor& upstream,
                            int64_t output_mask) {
  if (functions) {
    RECORD_FUNCTION("pyvae::elbo_gradient", c10::ArrayRef<const c10::IValue>());
    return functions->gradient(a, upstream, output_mask);
  }
  static const auto op = find_operator<ElboGradient>("pyvae::elbo_gradient");
  return from_outputs(call(op, a, upstream, output_mask));
}

Tensor take_buffer(AutogradContext* ctx, int64_t place) {
  const auto entry = ctx->saved_data.find(buffer_name(place));
  if (entry == ctx->saved_data.end()) return Tensor();
  const Tensor buffer = entry->second.toTensor();
  ctx->saved_data.erase(entry);
  if (buffer._version() != 0) return Tensor();
  buffer.unsafeGetTensorImpl()->bump_version();
  return buffer;
}

int64_t required_gradients(const LikelihoodArguments& a) {
  int64_t mask = requires_grad(a.recon) << kGradRecon | requires_grad(a.log_library) << kGradLogLibrary;
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    mask |= int64_t(requires_grad(a.parameters[k])) << (kGradParameter + int64_t(k));
  }
  return mask;
}

bool is_any_in_16_bits(const LikelihoodArguments& a) {
  return is_in_16_bits(a.recon) || is_in_16_bits(a.log_library) ||
         std::any_of(a.parameters.begin(), a.parameters.end(), [](const auto& p) { return is_in_16_bits(p); });
}

bool is_scalable(const ElboArguments& a, int64_t place) {
  if (place < kGradParameter || a.reduction != kNone) return true;
  const Tensor& parameter = *a.parameters[size_t(place - kGradParameter)];
  return parameter.dim() == a.recon.dim() && parameter.sym_size(0) == a.recon.sym_size(0);
}

bool are_scalable(const ElboArguments& a, int64_t mask) {
  for (int64_t place = 0; place < kGradients; ++place) {
    if (is_set(mask, place) && !is_scalable(a, place)) return false;
  }
  return true;
}

// Whether the device's functions can find out if sums over rows may be multiplied.
static bool compares_rows(const ObjectiveFunctions& functions, const ElboArguments& a, int64_t mask) {
  return functions.compares_rows || (functions.backward_rows_ && are_whole(a, mask));
}

bool stores_unscaled_gradients(const ElboArguments& a, const ObjectiveFunctions* functions) {
  const Trait& trait = kTraits[a.likelihood];
  if (!trait.is_count && trait.parameters == 0) return true;  // elbo_backward_ recomputes 16-bit ones
  if (is_any_in_16_bits(a)) return false;
  const int64_t mask = required_gradients(a);
  return are_scalable(a, mask) || (functions && compares_rows(*functions, a, mask));
}

int64_t with_kept(const ElboArguments& a, const ObjectiveFunctions* functions, int64_t mask) {
  return functions && functions->backward_rows_ && !are_scalable(a, mask) ? mask | int64_t(1) << kKept : mask;
}

int64_t gradients_in_forward(const ElboArguments& a) {
  const auto* const functions = direct<ObjectiveFunctions>(a.recon, a);
  if (at::SavedTensorDefaultHooks::get_hooks() || !stores_unscaled_gradients(a, functions)) return 0;
  return with_kept(a, functions, required_gradients(a));
}

}  // namespace pyvae
