// The noise of a chunk: Philox eight groups at a time, in 64-bit lanes, then Box-Muller.
#pragma once

#include "cpu/chunk.h"
#include "math/normal.h"

#if defined(__AVX2__)
#  include <immintrin.h>
#endif

namespace pyvae {
inline namespace PYVAE_ISA {

typedef uint64_t Lanes __attribute__((vector_size(8 * kNoiseLanes)));
typedef uint32_t HalfLanes __attribute__((vector_size(4 * kNoiseLanes)));

// Compilers do not see that the high halves do not matter, and multiply them too. This instruction ignores them.
template <>
struct WordProduct<Lanes> {
  PYVAE_HD static Lanes of(Lanes words, uint32_t constant) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_mul_epu32((__m512i)words, _mm512_set1_epi64(constant));
#elif defined(__AVX2__)
    __m256i halves[2];
    __builtin_memcpy(halves, &words, sizeof(words));
    const __m256i factor = _mm256_set1_epi64x(constant);
    halves[0] = _mm256_mul_epu32(halves[0], factor), halves[1] = _mm256_mul_epu32(halves[1], factor);
    __builtin_memcpy(&words, halves, sizeof(words));
    return words;
#else
    return (words & 0xffffffffu) * constant;
#endif
  }
};

// The normals of a sample's global indices [first, first + n). They start in `buffer` at the returned pointer, since a
// group may start before `first`. Two loops, words first, then normals: the compiler vectorizes each at its own width.
// kFirst: sample 0, whose half of the counter is the constant 0 for the compiler.
template <bool kFirst, class T>
const T* draw_sample(uint64_t seed, uint64_t sample, uint64_t first, int n, T* __restrict buffer) {
  constexpr int kWords = (kBuffer / kGroup<T> + kNoiseLanes - 1) / kNoiseLanes * kNoiseLanes;
  const uint64_t group = first / kGroup<T>;
  const int skip = int(first % kGroup<T>), groups = (skip + n + kGroup<T> - 1) / kGroup<T>;
  alignas(64) uint32_t words[4][kWords];
  for (int i = 0; i < groups; i += kNoiseLanes) {
    const Lanes zero = {}, counter = zero + (group + uint64_t(i)) + Lanes{0, 1, 2, 3, 4, 5, 6, 7};
    const Lanes half = kFirst ? zero : zero + sample;
    const Words<Lanes> w = philox<Lanes>(seed, {half, half >> 32, counter, counter >> 32});
    const Lanes lanes[4] = {w.w0, w.w1, w.w2, w.w3};
    for (int word = 0; word < 4; ++word) {
      const HalfLanes low = __builtin_convertvector(lanes[word], HalfLanes);
      __builtin_memcpy(&words[word][i], &low, sizeof(low));
    }
  }
  for (int i = 0; i < groups; ++i) {
    normals_of(Words<uint32_t>{words[0][i], words[1][i], words[2][i], words[3][i]}, buffer + kGroup<T> * i);
  }
  return buffer + skip;
}

template <class T>
const T* draw(uint64_t seed, uint64_t sample, uint64_t first, int n, T* __restrict buffer) {
  return sample == 0 ? draw_sample<true>(seed, 0, first, n, buffer)
                     : draw_sample<false>(seed, sample, first, n, buffer);
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
