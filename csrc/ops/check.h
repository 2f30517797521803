// Argument checks: the helpers that all operators share.
//
// `find_error` in each operator's checks.h returns nullptr, or a few words that say what is wrong (Python gives users
// the full message). It is called once per call: by the eager entries, which then bypass the dispatcher, or by the
// operators.
#pragma once

#include "ops/dtypes.h"

namespace pyvae {

inline void check(const char* name, const char* error) { TORCH_CHECK_VALUE(!error, "pyvae::", name, ": ", error); }

// On the same device as `other`, or a scalar on the CPU, which can be combined with any device.
inline bool is_at_hand(const Tensor& factor, const Tensor& other) {
  return factor.device() == other.device() || (factor.dim() == 0 && factor.is_cpu());
}

// One number per row of `like`, or one for all rows (`scalar`).
inline bool is_per_row(const Tensor& numbers, const Tensor& like, bool scalar) {
  if (!is_supported_type(numbers.scalar_type()) || numbers.device() != like.device()) return false;
  return scalar ? numbers.dim() == 0 : numbers.dim() == 1 && numbers.sym_size(0) == like.sym_size(0);
}

// The range of a logvar.
inline const char* find_range_error(const OptionalTensor& low, const OptionalTensor& high) {
  for (const OptionalTensor* bound : {&low, &high}) {
    if (!*bound) continue;
    if ((*bound)->dim() != 0 || !is_supported_type((*bound)->scalar_type())) return "low and high must be scalars";
    if (!(*bound)->is_cpu() && !(*bound)->is_meta()) return "low and high must be on the CPU";  // meta: while tracing
  }
  return nullptr;
}

}  // namespace pyvae
