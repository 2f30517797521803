// Dtypes: torch's names of the stored types, and the dtypes of results, the same on every device.
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

// The type's code, or StoredTypes::kCount if it is not a stored type.
inline int type_code(at::ScalarType type) {
  return int(std::find(std::begin(kScalarTypes), std::end(kScalarTypes), type) - std::begin(kScalarTypes));
}

inline bool is_supported_type(at::ScalarType type) { return type_code(type) < FloatingTypes::kCount; }
inline bool is_factor_type(at::ScalarType type) { return type_code(type) < FactorTypes::kCount; }
inline bool is_data_type(at::ScalarType type) { return type_code(type) < StoredTypes::kCount; }

// float64 if one of them is float64, else float32, also for integers.
inline at::ScalarType compute_type(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == at::kDouble || b.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::ScalarType sample_type(const LatentArguments& a) {
  return c10::promoteTypes(a.mu.scalar_type(), a.scale.scalar_type());
}

// The shape of z.
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

// Whether recon holds scores whose softmax gives the mean.
inline bool has_softmax(const LikelihoodArguments& a) {
  return kTraits[a.likelihood].softmax == Softmax::kAlways || a.log_library;
}

// The dtype of the KL term. Without a KL the term is 0, in the dtype of the reconstruction term.
inline at::ScalarType kl_type(const ElboArguments& a) {
  if (a.kl) return a.kl->scalar_type();
  return a.mu ? compute_type(*a.mu, *a.scale) : recon_type(a);
}

inline at::ScalarType loss_type(const ElboArguments& a) { return c10::promoteTypes(recon_type(a), kl_type(a)); }

// Returns an upstream gradient on the CPU, [B] or a scalar, as one scalar if all its numbers are equal, as after
// mean(); else unchanged.
inline Tensor as_scalar_if_uniform(const Tensor& upstream) {
  if (upstream.dim() != 1 || upstream.size(0) == 0) return upstream;
  const size_t size = upstream.element_size(), rest = size_t(upstream.size(0) - 1);
  const char* const data = static_cast<const char*>(upstream.const_data_ptr());
  const bool uniform = upstream.stride(0) == 0 || rest == 0 ||
                       (upstream.stride(0) == 1 && std::memcmp(data, data + size, rest * size) == 0);
  return uniform ? upstream.select(0, 0) : upstream;
}

// Whether an upstream gradient, on the CPU, is a scalar and equal to 1.
inline bool is_one(const Tensor& scalar) {
  if (scalar.dim() != 0) return false;
  return scalar.scalar_type() == at::kFloat    ? *scalar.const_data_ptr<float>() == 1.0f
         : scalar.scalar_type() == at::kDouble ? *scalar.const_data_ptr<double>() == 1.0
                                               : false;
}

}  // namespace pyvae
