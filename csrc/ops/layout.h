// From tensors to the kernels' Shape and Operands.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <initializer_list>

#include "cpu/kernels.h"

namespace pyvae {

struct Binding {
  const at::Tensor* tensor;  // undefined: absent
  cpu::Operand* operand;
};

// Lays the operands over one index space, merging dimensions that are contiguous in all of them. All tensors have the
// sizes of the first. `any_order`: features may be visited in any order (sums do not mind); the first tensor's memory
// order is taken. Otherwise the order is the logical one, which the noise is counted in.
cpu::Shape lay_out(std::initializer_list<Binding> bindings, bool any_order);

// The kernels follow at most kMaxDims strides: a tensor of more dimensions is made contiguous.
inline at::Tensor within_dims(const at::Tensor& tensor) {
  return tensor.defined() && tensor.dim() > cpu::kMaxDims ? tensor.contiguous() : tensor;
}

// An uninitialized tensor of `like`'s layout, about to be written whole. A large one comes as fresh pages from the
// system, whose first touch costs as much as the arithmetic: huge pages make that 512 times rarer.
at::Tensor empty_output(const at::Tensor& like, at::ScalarType type);

bool is_supported_type(at::ScalarType type);
at::ScalarType compute_type(at::ScalarType a, at::ScalarType b);  // float64 if one of them is, else float32

// Chunks that a thread should get at least: below, starting threads costs more than it saves.
constexpr int64_t kObjectiveGrain = 16;
constexpr int64_t kLatentGrain = 8;

// Numbers in double: a call's partial sums, or one value per row. Small ones live on the stack.
using Doubles = c10::SmallVector<double, 256>;
Doubles read_doubles(const at::Tensor& values);  // [B] or a scalar, any floating type, any stride

// Sums of the partials of each row, in their fixed order, and their reduction: [B], sum or batch mean.
Doubles reduce_rows(const cpu::Shape& shape, const double* partials, int64_t reduction);
at::Tensor to_tensor(const double* values, int64_t count, bool scalar, at::ScalarType type);

}  // namespace pyvae
