// Element types: torch's names of ours, and the results' types, the same on every device.
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>

#include "math/stored.h"
#include "ops/arguments.h"
#include "ops/codes.h"

namespace pyvae {

// torch's names of the StoredTypes, in their order.
constexpr at::ScalarType kScalarTypes[] = {at::kFloat, at::kDouble, at::kHalf,  at::kBFloat16, at::kBool,
                                           at::kByte,  at::kChar,   at::kShort, at::kInt,      at::kLong};
static_assert(std::size(kScalarTypes) == StoredTypes::kCount);

// The type's code, which is StoredTypes::kCount where it is none of them.
inline int type_code(at::ScalarType type) {
  return int(std::find(std::begin(kScalarTypes), std::end(kScalarTypes), type) - std::begin(kScalarTypes));
}

inline bool is_supported_type(at::ScalarType type) { return type_code(type) < FloatingTypes::kCount; }
inline bool is_factor_type(at::ScalarType type) { return type_code(type) < FactorTypes::kCount; }
inline bool is_data_type(at::ScalarType type) { return type_code(type) < StoredTypes::kCount; }

// float64 if one of them is, else float32, in which integers are computed too
inline at::ScalarType compute_type(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == at::kDouble || b.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::ScalarType sample_type(const LatentArguments& a) {
  return c10::promoteTypes(a.mu.scalar_type(), a.scale.scalar_type());
}

// Of z.
inline c10::SymDimVector sample_sizes(const LatentArguments& a) {
  c10::SymDimVector sizes(a.mu.sym_sizes());
  if (a.samples != 0) sizes.insert(sizes.begin(), a.samples);
  return sizes;
}

inline at::ScalarType recon_type(const LikelihoodArguments& a) { return compute_type(a.recon, a.target); }

inline at::ScalarType density_type(const MixtureArguments& a) {
  const Tensor& weights = a.logits ? *a.logits : a.mean;
  return c10::promoteTypes(compute_type(a.z, a.mean), compute_type(a.scale, weights));
}

// Whether recon holds scores, of which the softmax gives the mean.
inline bool has_softmax(const LikelihoodArguments& a) {
  return kTraits[a.likelihood].softmax == Softmax::kAlways || a.log_library;
}

// Of the KL term; without one it is 0, in the type of the reconstruction term.
inline at::ScalarType kl_type(const ElboArguments& a) {
  if (a.kl) return a.kl->scalar_type();
  return a.mu ? compute_type(*a.mu, *a.scale) : recon_type(a);
}

inline at::ScalarType loss_type(const ElboArguments& a) { return c10::promoteTypes(recon_type(a), kl_type(a)); }

// An upstream gradient on the CPU, [B] or a scalar, as one scalar where all its numbers are equal, as mean() makes
// them; else as it is.
inline Tensor as_scalar_if_uniform(const Tensor& upstream) {
  if (upstream.dim() != 1 || upstream.size(0) == 0) return upstream;
  const size_t size = upstream.element_size(), rest = size_t(upstream.size(0) - 1);
  const char* const data = static_cast<const char*>(upstream.const_data_ptr());
  const bool uniform = upstream.stride(0) == 0 || rest == 0 ||
                       (upstream.stride(0) == 1 && std::memcmp(data, data + size, rest * size) == 0);
  return uniform ? upstream.select(0, 0) : upstream;
}

// Whether a scalar on the CPU, an upstream gradient, is the number 1.
inline bool is_one(const Tensor& scalar) {
  if (scalar.dim() != 0) return false;
  return scalar.scalar_type() == at::kFloat    ? *scalar.const_data_ptr<float>() == 1.0f
         : scalar.scalar_type() == at::kDouble ? *scalar.const_data_ptr<double>() == 1.0
                                               : false;
}

}  // namespace pyvae
