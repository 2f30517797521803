// Small kernels that show what the emulator does, and mistakes that it must find. `self_test NAME` runs one of them and
// returns 0 if the numbers are right: all are 1. tests/test_cuda_emulated.py runs them all.
#include <cuda_runtime.h>

#include <cstring>
#include <numeric>

namespace {

constexpr int kThreads = 256, kBlocks = 37;

// ---- what works -----------------------------------------------------------------------------------------------------

__device__ double block_sum(double value) {
  __shared__ double sums[kThreads / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  return std::accumulate(sums, sums + kThreads / 32, 0.0);
}

__device__ unsigned ticket;
__device__ double partials[kBlocks];

__global__ void __launch_bounds__(kThreads) sum_kernel(int* out) {  // by the last block
  const double sum = block_sum(int(blockIdx.x * blockDim.x + threadIdx.x));
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  const double total = block_sum(threadIdx.x < gridDim.x ? partials[threadIdx.x] : 0), n = gridDim.x * blockDim.x;
  out[threadIdx.x] = total == n * (n - 1) / 2 && ticket == 0;
}

__global__ void lanes_kernel(int* out) {
  out[threadIdx.x] = 1;
  for (int bits = 0; bits < 32; ++bits) {
    const unsigned other = __shfl_xor_sync(0xffffffffu, threadIdx.x, bits);
    out[threadIdx.x] &= other == (threadIdx.x ^ unsigned(bits));
    const unsigned lane = threadIdx.x % 32, before = __shfl_up_sync(0xffffffffu, lane, unsigned(bits));
    out[threadIdx.x] &= before == (lane < unsigned(bits) ? lane : lane - unsigned(bits));
    out[threadIdx.x] &= __shfl_sync(0xffffffffu, lane, bits) == unsigned(bits);
  }
}

// ---- mistakes -------------------------------------------------------------------------------------------------------

__global__ void divergent_barrier_kernel(int*) {
  if (threadIdx.x < 128) __syncthreads();
}

__global__ void different_barriers_kernel(int*) {
  if (threadIdx.x < 128) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void divergent_shuffle_kernel(int* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
}

__global__ void different_shuffles_kernel(int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
  } else {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
  }
}

__global__ void part_of_a_warp_kernel(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffu, 1, 1); }

__global__ void absent_lane_kernel(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 32); }

__global__ void missing_barrier_kernel(int* out) {  // wrong numbers in one order of threads
  __shared__ int values[kThreads];
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x] == 1 && values[(threadIdx.x + 1) % kThreads] == 1;
}

__global__ void overwritten_shared_kernel(int* out) {  // before all have read it
  __shared__ int value;
  if (threadIdx.x == 0) value = 1;
  __syncthreads();
  out[threadIdx.x] = value == 1;
  if (threadIdx.x == 0 || threadIdx.x == kThreads - 1) value = 2;
}

__global__ void stale_shared_kernel(int* out) {  // the first block fills what the others only read
  __shared__ int value;
  if (blockIdx.x == 0) value = 1;
  __syncthreads();
  if (blockIdx.x > 0) out[threadIdx.x] = value == 1;
}

__global__ void misaligned_kernel(int* out) { out[threadIdx.x] = int(reinterpret_cast<const uint4*>(out + 1)->x); }

__global__ void past_the_end_kernel(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

// ---- running them ---------------------------------------------------------------------------------------------------

cudaError_t launch(void (*kernel)(int*), unsigned blocks, int* out) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = kThreads;
  return cudaLaunchKernelEx(&config, kernel, out);
}

#define TEST(name) {#name, name##_kernel}
constexpr struct {
  const char* name;
  void (*kernel)(int*);
} kTests[] = {
    TEST(sum),
    TEST(lanes),
    TEST(divergent_barrier),
    TEST(different_barriers),
    TEST(divergent_shuffle),
    TEST(different_shuffles),
    TEST(part_of_a_warp),
    TEST(absent_lane),
    TEST(missing_barrier),
    TEST(overwritten_shared),
    TEST(stale_shared),
    TEST(past_the_end),
    TEST(misaligned),
};

}  // namespace

int main(int, char** arguments) {
  for (const auto& test : kTests) {
    if (std::strcmp(test.name, arguments[1])) continue;
    for (int repeat = 0; repeat < 3; ++repeat) {
      alignas(16) int out[kThreads + 4] = {};
      if (launch(test.kernel, kBlocks, out) != cudaSuccess) return 1;
      if (std::accumulate(out, out + kThreads, 0) != kThreads) return 1;
    }
    // An empty grid is refused, which the last error tells once.
    const bool refused = launch(test.kernel, 0, nullptr) == cudaErrorInvalidConfiguration;
    return refused && cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess ? 0 : 1;
  }
  return 2;
}
