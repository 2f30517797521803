// A tensor as the kernels see it, on either device: raw memory, a type, and strides over a common index space.
#pragma once

#include "math/platform.h"

namespace pyvae {

enum class Type : int8_t { kFloat, kDouble, kHalf, kBFloat16, kBool };

constexpr int kMaxDims = 8;

// The index space of one call: `rows` samples of `features` elements each, as sizes[0] x ... x sizes[dims - 1] after
// dimensions that are contiguous in every operand have been merged. Elements are numbered row by row.
struct Shape {
  int64_t rows, features;
  int dims;
  int64_t sizes[kMaxDims];
};

// A tensor over a Shape, read or written through strides counted in elements (0 where it is broadcast).
struct Operand {
  void* data = nullptr;  // [sizes...]; null: absent
  Type type = Type::kFloat;
  bool contiguous = false;  // in the Shape's own order
  int64_t strides[kMaxDims] = {};
};

}  // namespace pyvae
