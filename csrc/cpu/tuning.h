// Constants of the CPU kernels that may be tuned, each with its reason. Results never depend on threads or instruction
// sets, but their last bits depend on the first three constants.
#pragma once

#include <cstdint>

namespace pyvae {
namespace cpu {

// Elements of a chunk: its eight buffers of 4 or 8 bytes per element fit into an L1 cache of 32 KiB.
constexpr int kChunk = 512;
// If a row is split, its parts begin at multiples of this: one cache line, one AVX-512 register of floats.
constexpr int kLine = 16;
// Lanes of a sum before they are added in double: one AVX-512 or two AVX2 registers of floats.
constexpr int kSumLanes = 16;

// Rows of a group, over which each sum per column is added row after row. A smaller group gives threads more to share;
// a larger one needs less memory for the sums (here a sixteenth of recon's). Float's accuracy also limits it.
constexpr int64_t kGroupRows = 16;

// Rows of a mixture's tile, side by side in registers: two AVX-512 registers, so that a component's loaded numbers
// serve both, and about as many rows as the thirty samples of a posterior.
constexpr int kTileRows = 32;
// With fewer rows per group of components, vectors run over features instead: a tile would be mostly empty.
constexpr int64_t kFewRows = 8;
// Features whose squares are added in one run, before that is added to the other runs: a limit for float's accuracy.
constexpr int kSquares = 64;
// Components whose terms are kept for a tile until they are added to its log-sum-exp: a small part of the cache.
constexpr int kTerms = 16;
// Rows that a thread takes, and over which a component's gradient is summed in float. The work around the tiles (the
// components' scales, folding the lanes) is then a tenth.
constexpr int64_t kStripRows = 512;
// Bytes of the components' sums, lane by lane, while a strip's tiles add to them: half of an L1 cache.
constexpr int64_t kMomentBytes = 16 * 1024;
// For shared components: how many numbers the threads' sums may take together.
constexpr int64_t kMixturePartials = int64_t(1) << 22;
// Terms of a density (one per row, component and feature) that a thread should get at least: some 5 us of work.
constexpr int64_t kMixtureGrain = 30000;

// Philox groups at a time: one AVX-512 register of 64-bit lanes, two of AVX2, four of NEON or SSE2.
constexpr int kNoiseLanes = 8;

// Chunks that a thread should get at least. With fewer, starting threads costs more than it saves (some 5 us, the time
// of 16 chunks of the objective; a chunk of the sampler takes twice as long).
constexpr int64_t kObjectiveGrain = 16;
constexpr int64_t kLatentGrain = 8;
constexpr int64_t kCountsGrain = 4;

}  // namespace cpu
}  // namespace pyvae
