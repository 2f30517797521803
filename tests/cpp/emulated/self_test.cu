// Small kernels that show what the emulator does, and mistakes that it must find. `self_test NAME` runs one of them and
// returns 0 if the numbers are right; tests/test_cuda_emulated.py runs them all.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

constexpr int kThreads = 256, kBlocks = 37;

// ---- what works -----------------------------------------------------------------------------------------------------

__device__ double block_sum(double value) {
  __shared__ double sums[kThreads / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

__device__ unsigned ticket;

__global__ void __launch_bounds__(kThreads) sum_kernel(const float* in, int n, double* partials, double* out) {
  double sum = 0;
  for (int i = int(blockIdx.x * kThreads + threadIdx.x); i < n; i += int(gridDim.x * kThreads)) sum += in[i];
  sum = block_sum(sum);
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  const double total = block_sum(threadIdx.x < gridDim.x ? partials[threadIdx.x] : 0);
  if (threadIdx.x == 0) *out = total;
}

__global__ void double_kernel(const float4* in, float4* out, int n) {
  const int i = int(blockIdx.x * kThreads + threadIdx.x);
  if (i >= n) return;
  const float4 v = __ldcs(in + i);
  __stcs(out + i, float4{2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w});
}

__global__ void lanes_kernel(int* out) {
  const int lane = int(threadIdx.x % 32), down = __shfl_down_sync(~0u, lane, 3), up = __shfl_up_sync(~0u, lane, 3);
  const int first = __shfl_sync(~0u, lane, 0, 8), half = lane < 16 ? __shfl_xor_sync(0xffffu, lane, 1) : lane;
  const unsigned odd = __ballot_sync(~0u, lane % 2);
  const int votes = __syncthreads_count(lane < 2), any = __syncthreads_or(threadIdx.x == 255);
  const int all = __syncthreads_and(threadIdx.x < 255);
  __syncwarp();
  out[threadIdx.x] = down == (lane < 29 ? lane + 3 : lane) && up == (lane < 3 ? lane : lane - 3) &&
                     first == lane / 8 * 8 && half == (lane < 16 ? lane ^ 1 : lane) && odd == 0xaaaaaaaau &&
                     votes == 16 && any && !all && __any_sync(~0u, lane == 31) && !__all_sync(~0u, lane < 31);
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
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 2);
}

__global__ void foreign_mask_kernel(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffu, 1, 1); }

__global__ void absent_lane_kernel(int* out) {
  if (threadIdx.x % 32 < 8) out[threadIdx.x] = __shfl_xor_sync(0xffu, 1, 8);
}

__global__ void missing_barrier_kernel(int* out) {  // wrong numbers in one order of threads
  __shared__ int values[kThreads];
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x] == 1 && values[(threadIdx.x + 1) % kThreads] == 1;
}

__global__ void overwritten_shared_kernel(int* out) {  // before all have read it
  __shared__ int value;
  if (threadIdx.x == 0) value = 1;
  __syncthreads();
  out[threadIdx.x] = value;
  if (threadIdx.x == 0 || threadIdx.x == kThreads - 1) value = 2;
}

__global__ void stale_shared_kernel(int* out) {  // the first block fills what the others only read
  __shared__ int value;
  if (blockIdx.x == 0) value = 1;
  __syncthreads();
  if (value != 1) out[threadIdx.x] = 0;
}

__global__ void misaligned_kernel(int* out) { out[threadIdx.x] = int(reinterpret_cast<const uint4*>(out + 1)->x); }

__global__ void past_the_end_kernel(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

// ---- running them ---------------------------------------------------------------------------------------------------

cudaLaunchConfig_t blocks(unsigned count) {
  cudaLaunchConfig_t config{};
  config.gridDim = count, config.blockDim = kThreads;
  return config;
}

bool sums() {
  std::vector<float> in(100'003);
  std::iota(in.begin(), in.end(), -5.0f);
  const double want = std::accumulate(in.begin(), in.end(), 0.0);
  const cudaLaunchConfig_t config = blocks(kBlocks);
  bool right = true;
  for (int repeat = 0; repeat < 3; ++repeat) {
    double partials[kBlocks], out = 0;
    right &= cudaLaunchKernelEx(&config, sum_kernel, in.data(), int(in.size()), partials, &out) == cudaSuccess;
    right &= out == want && ticket == 0;
  }
  return right;
}

bool doubles() {
  std::vector<float4> in(4'000'000, float4{1, 2, 3, 4}), out(in.size());
  const cudaLaunchConfig_t config = blocks(unsigned(in.size() / kThreads));
  cudaLaunchKernelEx(&config, double_kernel, in.data(), out.data(), int(in.size()));
  for (const float4& v : out) {
    if (v.x != 2 || v.y != 4 || v.z != 6 || v.w != 8) return false;
  }
  return true;
}

bool refuses_an_empty_grid() {
  const cudaLaunchConfig_t config = blocks(0);
  const bool refused = cudaLaunchKernelEx(&config, lanes_kernel, nullptr) == cudaErrorInvalidConfiguration;
  return refused && cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess;
}

bool all_ones(void (*kernel)(int*)) {
  alignas(16) int out[kThreads + 4];
  std::fill(out, out + kThreads, 1);
  const cudaLaunchConfig_t config = blocks(3);
  cudaLaunchKernelEx(&config, kernel, out);
  return std::accumulate(out, out + kThreads, 0) == kThreads;
}

struct Test {
  const char* name;
  bool (*run)();
};
constexpr Test kTests[] = {
    {"sums", sums},
    {"doubles", doubles},
    {"empty_grid", refuses_an_empty_grid},
    {"lanes", [] { return all_ones(lanes_kernel); }},
    {"divergent_barrier", [] { return all_ones(divergent_barrier_kernel); }},
    {"different_barriers", [] { return all_ones(different_barriers_kernel); }},
    {"divergent_shuffle", [] { return all_ones(divergent_shuffle_kernel); }},
    {"foreign_mask", [] { return all_ones(foreign_mask_kernel); }},
    {"absent_lane", [] { return all_ones(absent_lane_kernel); }},
    {"missing_barrier", [] { return all_ones(missing_barrier_kernel); }},
    {"overwritten_shared", [] { return all_ones(overwritten_shared_kernel); }},
    {"stale_shared", [] { return all_ones(stale_shared_kernel); }},
    {"past_the_end", [] { return all_ones(past_the_end_kernel); }},
    {"misaligned", [] { return all_ones(misaligned_kernel); }},
};

}  // namespace

int main(int, char** arguments) {
  for (const Test& test : kTests) {
    if (!std::strcmp(test.name, arguments[1])) return test.run() ? 0 : 1;
  }
  return 2;
}
