// Helpers of the CPU operators around their kernels: new outputs, and numbers in and out of tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/SmallVector.h>

#include <type_traits>

#include "cpu/kernels.h"
#include "ops/codes.h"

namespace pyvae {
namespace cpu {

// The kernels for this machine, in float or in double.
inline const Kernels& kernels(bool in_double) {
  return in_double ? instruction_set()->in_double : instruction_set()->in_float;
}

// Numbers in double: a call's partial sums, or one value per row. Small ones live on the stack.
using Doubles = c10::SmallVector<double, 256>;
Doubles read_doubles(const at::Tensor& values);  // [B] or a scalar, any floating type, any stride

// Sums the partials of each row, in their fixed order, and reduces the rows: [B], sum or batch mean.
Doubles reduce_rows(int64_t rows, int64_t per_row, const double* partials, int64_t reduction);

// Makes a tensor of the `count` numbers value(i): [B] without reduction, else a scalar. Float or double.
template <class Value>
at::Tensor to_tensor(size_t count, const Value& value, int64_t reduction, at::ScalarType type) {
  at::Tensor out = reduction == kNone ? at::empty({int64_t(count)}, type) : at::empty({}, type);
  const auto write = [&](auto* to) {
    for (size_t i = 0; i < count; ++i) to[i] = std::remove_reference_t<decltype(*to)>(value(i));
  };
  if (type == at::kDouble) {
    write(out.mutable_data_ptr<double>());
  } else {
    write(out.mutable_data_ptr<float>());
  }
  return out;
}
at::Tensor to_tensor(const Doubles& values, int64_t reduction, at::ScalarType type);

// An uninitialized tensor with `like`'s layout; the caller writes all of it. A large one gets new pages from the
// system, whose first touch costs as much as the arithmetic. Huge pages make that 512 times rarer.
at::Tensor empty_output(const at::Tensor& like, at::ScalarType type);

}  // namespace cpu
}  // namespace pyvae
