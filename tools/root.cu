// Our square root and CUDA's, which tools/root_code.py compares. As a program it compares ours with the host's, for
// every float of [1, 4): all mantissas and parities of the exponent that a root can have.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "math/platform.h"

extern "C" __global__ void ours(const float* x, float* root) { *root = pyvae::sqrt(*x); }
extern "C" __global__ void cudas(const float* x, float* root) { *root = __fsqrt_rn(*x); }

constexpr unsigned kOne = 0x3f800000, kCount = 1 << 24;  // the bits of 1.0f, and how many floats there are up to 4.0f

__global__ void all(float* root) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  root[i] = pyvae::sqrt(__uint_as_float(kOne + i));
}

int main() {
  float* root = nullptr;
  cudaMallocManaged(&root, kCount * sizeof(float));
  all<<<kCount / 256, 256>>>(root);
  if (const cudaError_t error = cudaDeviceSynchronize()) {
    std::printf("%s\n", cudaGetErrorString(error));
    return 2;
  }
  unsigned wrong = 0;
  for (unsigned i = 0; i < kCount; ++i) {
    const unsigned bits = kOne + i;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    wrong += root[i] != std::sqrt(x);
  }
  std::printf("%u of %u square roots are not the host's\n", wrong, kCount);
  return wrong != 0;
}
