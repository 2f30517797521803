// The gradient of a broadcast tensor: each of its elements gets the sum over the elements that read it.
#pragma once

#include <ATen/core/Tensor.h>

namespace pyvae {

// Sums `full` over the dimensions that were broadcast from `sizes` to its shape, and rounds once to `type`. `full` is
// float or double. The order of summation depends on the shape alone: on the CPU the sums are in double; on CUDA
// at::sum is used, which has no atomics.
at::Tensor sum_to(const at::Tensor& full, at::IntArrayRef sizes, at::ScalarType type);

}  // namespace pyvae
