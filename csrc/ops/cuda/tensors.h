// Converts tensors to the CUDA kernels' arguments.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cuda/runtime.h"
#include "ops/dtypes.h"
#include "ops/layout.h"

namespace pyvae {
namespace cuda {

inline Result result(const Tensor& tensor) { return {tensor.mutable_data_ptr(), tensor.scalar_type() == at::kDouble}; }

// The kernels read float and double; other dtypes are converted.
inline Tensor as_real(const OptionalTensor& tensor) {
  if (!tensor) return Tensor();
  const at::ScalarType type = tensor->scalar_type();
  return type == at::kFloat || type == at::kDouble ? *tensor : tensor->to(at::kFloat);
}

// One number per row, [B], or one for all, []; undefined: absent.
inline PerRow per_row(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.const_data_ptr(), tensor.scalar_type() == at::kDouble, tensor.dim() == 0 ? 0 : tensor.stride(0)};
}

}  // namespace cuda
}  // namespace pyvae
