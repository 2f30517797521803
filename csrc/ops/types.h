// Types and shapes of results, the same on every device.
#pragma once

#include "ops/arguments.h"
#include "ops/codes.h"

namespace pyvae {

inline bool is_supported_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

// float64 if one of them is, else float32
inline at::ScalarType compute_type(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == at::kDouble || b.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::ScalarType sample_type(const LatentArguments& a) {
  return c10::promoteTypes(a.mu.scalar_type(), a.scale.scalar_type());
}

inline at::ScalarType recon_type(const LikelihoodArguments& a) { return compute_type(a.recon, a.target); }

// Of the KL term; without one it is 0, in the type of the reconstruction term.
inline at::ScalarType kl_type(const ElboArguments& a) {
  if (a.kl) return a.kl->scalar_type();
  return a.mu ? compute_type(*a.mu, *a.scale) : recon_type(a);
}

inline at::ScalarType loss_type(const ElboArguments& a) { return c10::promoteTypes(recon_type(a), kl_type(a)); }

}  // namespace pyvae
