// Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011. It is a pure function of its key (our seed) and of the counter, so the backward pass can draw the forward's
// noise again.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// Four 32-bit words, each in the low half of a 64-bit lane; the high half is ignored. So a product needs no unpacking,
// for scalars and for SIMD lanes.
template <class Lane>
struct Words {
  Lane w0, w1, w2, w3;
};

// word * constant, all 64 bits. SIMD lanes on the CPU have their own specialization (cpu/noise.h).
template <class Lane>
struct WordProduct;

template <>
struct WordProduct<uint64_t> {
  PYVAE_HD static uint64_t of(uint64_t word, uint32_t constant) {
#ifdef __CUDA_ARCH__  // otherwise the compiler emits a 64-bit product, which adds the zero upper halves
    uint64_t out;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(out) : "r"(uint32_t(word)), "r"(constant));
    return out;
#else
    return uint64_t(uint32_t(word)) * constant;
#endif
  }
};

template <class Lane>
PYVAE_HD Words<Lane> philox(uint64_t seed, Words<Lane> c) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  PYVAE_UNROLL
  for (int round = 0; round < 10; ++round) {
    const Lane a = WordProduct<Lane>::of(c.w0, 0xD2511F53u), b = WordProduct<Lane>::of(c.w2, 0xCD9E8D57u);
    c = {(b >> 32) ^ c.w1 ^ key0, b, (a >> 32) ^ c.w3 ^ key1, a};
    key0 += 0x9E3779B9u;  // the golden ratio
    key1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return c;
}

// The words of one group of a seed's noise. The low half of the counter is the sample, from 0; or an offset, for
// callers that identify a generator's words by it.
PYVAE_HD Words<uint64_t> philox(uint64_t seed, uint64_t group, uint64_t offset = 0) {
  return philox<uint64_t>(seed, {offset, offset >> 32, group, group >> 32});
}

// Draws like torch.randint(-2**63, 2**63 - 1) on CUDA from a generator's seed and offset, so that the reference makes
// the same noise: the first two words of the first thread. The offset counts words, four per counter.
PYVAE_HD uint64_t drawn_seed(uint64_t generator_seed, uint64_t generator_offset) {
  const Words<uint64_t> words = philox(generator_seed, 0, generator_offset / 4);
  const uint64_t bits = uint64_t(uint32_t(words.w0)) << 32 | uint32_t(words.w1);
  return (bits == ~uint64_t(0) ? 0 : bits) + (uint64_t(1) << 63);  // modulo 2**64 - 1
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
