// The gradient of a tensor that was broadcast: the sum over the elements that each of its own was read for.
#pragma once

#include <ATen/core/Tensor.h>

namespace pyvae {

// The sums of `full` over what was broadcast to reach its shape from `sizes`, rounded once to `type`. `full` is float
// or double. The order of summation depends on the shape alone: on the CPU in double; on CUDA by at::sum, which uses no
// atomics.
at::Tensor sum_to(const at::Tensor& full, at::IntArrayRef sizes, at::ScalarType type);

}  // namespace pyvae
