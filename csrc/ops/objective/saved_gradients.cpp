#include "ops/objective/saved_gradients.h"

#include <ATen/SavedTensorHooks.h>

#include <algorithm>

#include "ops/autograd.h"
#include "ops/codes.h"
#include "ops/objective/functions.h"

namespace pyvae {

bool is_in_16_bits(const Tensor& tensor) { return at::elementSize(tensor.scalar_type()) <= 2; }
static bool is_in_16_bits(const OptionalTensor& tensor) { return tensor && is_in_16_bits(*tensor); }

bool stores_unscaled_gradients(const ElboArguments& a) {
  if (!kTraits[a.likelihood].goes_by_rows) return true;
  const auto* const functions = registered<ObjectiveFunctions>(a.recon.device().type());
  return (a.reduction != kNone || (functions && functions->scales_rows)) && !is_in_16_bits(a.recon) &&
         !is_in_16_bits(a.log_library) &&
         std::none_of(a.parameters.begin(), a.parameters.end(), [](const auto& p) { return is_in_16_bits(p); });
}

// The gradients that autograd asks for by what may have one that the kernels compute.
static int64_t required_gradients(const ElboArguments& a) {
  int64_t mask = requires_grad(a.recon) << kGradRecon | requires_grad(a.log_library) << kGradLogLibrary;
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    mask |= int64_t(requires_grad(a.parameters[k])) << (kGradParameter + int64_t(k));
  }
  return mask;
}

bool is_scalable(const ElboArguments& a, int64_t place) { return place < kGradParameter || a.reduction != kNone; }

int64_t gradients_in_forward(const ElboArguments& a) {
  if (at::SavedTensorDefaultHooks::get_hooks() || !stores_unscaled_gradients(a)) return 0;
  const int64_t mask = required_gradients(a);
  for (int64_t place = 0; place < kGradients; ++place) {
    if (is_set(mask, place) && !is_scalable(a, place) && !direct<ObjectiveFunctions>(a.recon, a)) return 0;
  }
  return mask;
}

}  // namespace pyvae
