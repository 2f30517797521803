// From tensors to the kernels' Shape and Operands.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "operand.h"

namespace pyvae {

struct Binding {
  const at::Tensor* tensor;  // undefined: absent
  Operand* operand;
};

// Lays the operands over one index space, merging dimensions that are contiguous in all of them. All tensors have the
// sizes of the first. `any_order`: features may be visited in any order (sums do not mind); the first tensor's memory
// order is taken. Otherwise the order is the logical one, which the noise is counted in.
Shape lay_out(std::initializer_list<Binding> bindings, bool any_order);

// The kernels follow at most kMaxDims strides: a tensor of more dimensions is made contiguous.
inline at::Tensor within_dims(const at::Tensor& tensor) {
  return tensor.defined() && tensor.dim() > kMaxDims ? tensor.contiguous() : tensor;
}

bool is_supported_type(at::ScalarType type);
at::ScalarType compute_type(at::ScalarType a, at::ScalarType b);  // float64 if one of them is, else float32

}  // namespace pyvae
