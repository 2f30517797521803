// Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011. A pure function of (key, counter), so the backward pass draws the forward's noise again.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

struct Words {
  uint32_t w0, w1, w2, w3;
};

PYVAE_HD Words philox_round(Words c, uint32_t key0, uint32_t key1) {
  const uint64_t a = uint64_t(0xD2511F53u) * c.w0;
  const uint64_t b = uint64_t(0xCD9E8D57u) * c.w2;
  return {uint32_t(b >> 32) ^ c.w1 ^ key0, uint32_t(b), uint32_t(a >> 32) ^ c.w3 ^ key1, uint32_t(a)};
}

PYVAE_HD Words philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  Words c = {uint32_t(counter_low), uint32_t(counter_low >> 32), uint32_t(counter_high), uint32_t(counter_high >> 32)};
  uint32_t key0 = uint32_t(key), key1 = uint32_t(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    c = philox_round(c, key0, key1);
    key0 += 0x9E3779B9u;  // the golden ratio
    key1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return c;
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
