// What the CPU operators do around their kernels: fresh memory, and numbers in and out of tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include "cpu/kernels.h"
#include "ops/codes.h"

namespace pyvae {
namespace cpu {

// The kernels for this machine that compute in float, or in double.
inline const Kernels& kernels(bool in_double) {
  return in_double ? instruction_set()->in_double : instruction_set()->in_float;
}

// Numbers in double: a call's partial sums, or one value per row. Small ones live on the stack.
using Doubles = c10::SmallVector<double, 256>;
Doubles read_doubles(const at::Tensor& values);  // [B] or a scalar, any floating type, any stride

// Sums of the partials of each row, in their fixed order, and their reduction: [B], sum or batch mean.
Doubles reduce_rows(int64_t rows, int64_t per_row, const double* partials, int64_t reduction);

// [B] without reduction, else a scalar.
at::Tensor to_tensor(const Doubles& values, int64_t reduction, at::ScalarType type);

// An uninitialized tensor of `like`'s layout, about to be written whole. A large one comes as fresh pages from the
// system, whose first touch costs as much as the arithmetic: huge pages make that 512 times rarer.
at::Tensor empty_output(const at::Tensor& like, at::ScalarType type);

}  // namespace cpu
}  // namespace pyvae
