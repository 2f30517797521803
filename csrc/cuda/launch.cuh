// Launching: one dimension of blocks, one stream, and what CUDA says of it.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels.h"

namespace pyvae {
namespace cuda {

// Blocks that must fit a multiprocessor at once, which bounds their registers: to 128 and 80 a thread.
template <class Access>
constexpr int kBlocksPerSm = Access::kGeneral ? 2 : 3;

template <class Call>
const char* run(void (*kernel)(Call), const Call& call, int64_t blocks, void* stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(Partition::kThreads);
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, call);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // it is told here, not again by the next call of someone else
  return cudaGetErrorString(status);
}

// Whether vectors of `type` can follow an operand: it is contiguous, but for rows of a wider tensor that are whole
// vectors long. An absent operand is.
inline bool is_packed(const Shape& shape, const Operand& operand, Type type) {
  if (!operand.data) return true;
  if (operand.type != type) return false;
  return shape.dims == 1 ? operand.contiguous
                         : shape.dims == 2 && operand.strides[1] == 1 && shape.sizes[1] % Partition::kVector == 0;
}

// And written by them: aligned besides.
inline bool is_packed_output(const Shape& shape, const Operand& operand, Type type) {
  return is_packed(shape, operand, type) && reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 &&
         (shape.dims == 1 || operand.strides[0] % Partition::kVector == 0);
}

// Whether the elements of every vector share their number.
inline bool is_packed(const Shape& shape, const PerRow& values) {
  return !values.data || values.stride == 0 || shape.features % Partition::kVector == 0;
}

// Whether no factor but the gradient's own is to be applied.
inline bool is_unweighted(const Objective& a) {
  return !a.weight.data && !a.pos_weight.data && a.weight_value == 1 && a.pos_weight_value == 1;
}

}  // namespace cuda
}  // namespace pyvae
