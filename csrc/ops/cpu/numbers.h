// What the CPU operators do around their kernels: fresh memory, and numbers in and out of tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include "cpu/kernels.h"

namespace pyvae {

// An uninitialized tensor of `like`'s layout, about to be written whole. A large one comes as fresh pages from the
// system, whose first touch costs as much as the arithmetic: huge pages make that 512 times rarer.
at::Tensor empty_output(const at::Tensor& like, at::ScalarType type);

// Chunks that a thread should get at least: below, starting threads costs more than it saves.
constexpr int64_t kObjectiveGrain = 16;
constexpr int64_t kLatentGrain = 8;

// Numbers in double: a call's partial sums, or one value per row. Small ones live on the stack.
using Doubles = c10::SmallVector<double, 256>;
Doubles read_doubles(const at::Tensor& values);  // [B] or a scalar, any floating type, any stride

// Sums of the partials of each row, in their fixed order, and their reduction: [B], sum or batch mean.
Doubles reduce_rows(const Shape& shape, const double* partials, int64_t reduction);
at::Tensor to_tensor(const double* values, int64_t count, bool scalar, at::ScalarType type);

}  // namespace pyvae
