// What may be tuned of the CPU's kernels, each with its reason. Results do not depend on threads or instruction sets,
// but their last bits do depend on the first three numbers here.
#pragma once

#include <cstdint>

namespace pyvae {
namespace cpu {

// Elements of a chunk: its eight buffers of 4 or 8 bytes an element stay in a first-level cache of 32 KiB.
constexpr int kChunk = 512;
// Rows that are cut begin their parts at multiples of this: one line of the cache, one AVX-512 register of floats.
constexpr int kLine = 16;
// Lanes that a sum runs in before it is added up in double: one AVX-512 or two AVX2 registers of floats.
constexpr int kSumLanes = 16;

// Rows of a group, over which sums per column are added up one after the other: what threads can share, against their
// memory, a sixteenth of recon's, and float's accuracy.
constexpr int64_t kGroupRows = 16;

// Philox groups at a time: one AVX-512 register of 64-bit lanes, two of AVX2, four of NEON or SSE2.
constexpr int kNoiseLanes = 8;

// Chunks that a thread should get at least: below, starting threads costs more than it saves (some 5 us, the time of
// 16 chunks of the objective; a chunk of the sampler takes twice as long).
constexpr int64_t kObjectiveGrain = 16;
constexpr int64_t kLatentGrain = 8;
constexpr int64_t kCountsGrain = 4;

}  // namespace cpu
}  // namespace pyvae
