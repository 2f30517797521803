// The noise of a vector: the same bits as the CPU's (cpu/noise.h), from the same formulas.
#pragma once

#include "cuda/kernels.h"
#include "math/normal.h"

namespace pyvae {
namespace cuda {

// The 64 bits that all elements of a call share.
__device__ __forceinline__ uint64_t resolve(const Seed& seed) {
  if (seed.given) return uint64_t(*seed.given);
  if (!seed.captured_seed) return seed.value;
  return drawn_seed(uint64_t(*seed.captured_seed), uint64_t(*seed.captured_offset) + seed.value);
}

template <class T>
__device__ __forceinline__ void draw_group(uint64_t seed, uint64_t sample, uint64_t group, T* out) {  // [kGroup<T>]
  const Words<uint64_t> words = philox(seed, group, sample);
  normals_of(Words<uint32_t>{uint32_t(words.w0), uint32_t(words.w1), uint32_t(words.w2), uint32_t(words.w3)}, out);
}

// One normal: its group's, chosen without an index, which would need local memory.
__device__ __forceinline__ float draw_one(uint64_t seed, uint64_t sample, uint64_t index, float) {
  float group[4];
  draw_group(seed, sample, index / 4, group);
  const float even = index & 2 ? group[2] : group[0], odd = index & 2 ? group[3] : group[1];
  return index & 1 ? odd : even;
}
__device__ __forceinline__ double draw_one(uint64_t seed, uint64_t sample, uint64_t index, double) {
  double group[2];
  draw_group(seed, sample, index / 2, group);
  return index & 1 ? group[1] : group[0];
}

// The normals of a sample's global indices [first, first + V). kAnyStart: first need not be where a group begins.
template <bool kAnyStart, class T, int V>
__device__ __forceinline__ void draw(uint64_t seed, uint64_t sample, uint64_t first, T (&out)[V]) {
  constexpr int kGroup = pyvae::kGroup<T>;
  if constexpr (V == 1) {
    out[0] = draw_one(seed, sample, first, T());
  } else if (!kAnyStart || first % kGroup == 0) {
    PYVAE_UNROLL
    for (int g = 0; g < V / kGroup; ++g) draw_group(seed, sample, first / kGroup + g, out + g * kGroup);
  } else {
#pragma unroll 1
    for (int k = 0; k < V; ++k) {
      const T normal = draw_one(seed, sample, first + k, T());
      PYVAE_UNROLL
      for (int j = 0; j < V; ++j) out[j] = j == k ? normal : out[j];
    }
  }
}

}  // namespace cuda
}  // namespace pyvae
