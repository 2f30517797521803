// Checks of arguments, and what those of both operators share.
//
// `find_error` of each operator's checks.h answers nullptr, or in a few words what is wrong (Python gives users the
// full message). It is asked once a call: by the eager entries, which then call around the dispatcher, or by the
// operators.
#pragma once

#include "ops/dtypes.h"

namespace pyvae {

inline void check(const char* name, const char* error) { TORCH_CHECK_VALUE(!error, "pyvae::", name, ": ", error); }

// On the other's device, or a number on the CPU, which goes with any device.
inline bool is_at_hand(const Tensor& factor, const Tensor& other) {
  return factor.device() == other.device() || (factor.dim() == 0 && factor.is_cpu());
}

// One number per row of `like`, or (`scalar`) one for all of them.
inline bool is_per_row(const Tensor& numbers, const Tensor& like, bool scalar) {
  if (!is_supported_type(numbers.scalar_type()) || numbers.device() != like.device()) return false;
  return scalar ? numbers.dim() == 0 : numbers.dim() == 1 && numbers.sym_size(0) == like.sym_size(0);
}

// The range of a logvar.
inline const char* find_range_error(const OptionalTensor& low, const OptionalTensor& high) {
  for (const OptionalTensor* bound : {&low, &high}) {
    if (!*bound) continue;
    if ((*bound)->dim() != 0 || !is_supported_type((*bound)->scalar_type())) return "low and high must be scalars";
    if (!(*bound)->is_cpu() && !(*bound)->is_meta()) return "low and high must be on the CPU";  // meta: a tracer's
  }
  return nullptr;
}

}  // namespace pyvae
