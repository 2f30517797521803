// Upstream gradients of rows, compared by one launch for the next one: nobody waits for the host, or for other blocks.
#pragma once

#include "cuda/reduce.cuh"

namespace pyvae {
namespace cuda {

// Of the numbers of_row(row), double: they are the same if their bits are, so that NaN is, too.
template <class OfRow>
__device__ __forceinline__ void compare_rows(const Comparison& c, const OfRow& of_row) {
  const auto bits_of = [&](int64_t row) {
    const double number = of_row(row);
    uint64_t bits;
    __builtin_memcpy(&bits, &number, sizeof bits);
    return bits;
  };
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
#pragma unroll 1
  for (int64_t slice = first; slice < c.slices; slice += int64_t(gridDim.x) * kThreads) c.tickets[slice] = 0;
  if (blockIdx.x >= c.blocks) return;
  const uint64_t bits = bits_of(0);
  int differ = 0;
#pragma unroll 1
  for (int64_t row = first; row < c.rows; row += c.blocks * kThreads) differ |= int(bits_of(row) != bits);
  differ = warp_sum(differ);
  if (threadIdx.x % kWarp == 0) c.differ[first / kWarp] = differ;
}

// What was found, the same in all threads of all blocks. All lanes of a warp must call.
__device__ __forceinline__ bool do_rows_differ(const Comparison& c) {
  int differ = 0;
#pragma unroll 1
  for (int64_t i = threadIdx.x % kWarp; i < c.blocks * (kThreads / kWarp); i += kWarp) differ |= c.differ[i];
  return warp_sum(differ) != 0;
}

}  // namespace cuda
}  // namespace pyvae
