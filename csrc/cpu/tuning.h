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

// Rows of a mixture's tile, side by side in registers: two of AVX-512's, so that what is loaded of a component serves
// both, and as many as the thirty samples of a posterior fill.
constexpr int kTileRows = 32;
// Rows to a group of components below which vectors go over features instead: a tile would be mostly empty.
constexpr int64_t kFewRows = 8;
// Features whose squares are added up in one run, before that is added to the others': float's accuracy.
constexpr int kSquares = 64;
// Components whose terms are kept of a tile, until they join its logarithm of a sum: a small part of the cache.
constexpr int kTerms = 16;
// Rows that a thread takes, and that sums of a component's gradient are added up over in float: what is around a tile,
// the components' scales and the folding of lanes, is then a tenth.
constexpr int64_t kStripRows = 512;
// Bytes of a component's sums, lane by lane, while a strip's tiles add to them: half of a first-level cache.
constexpr int64_t kMomentBytes = 16 * 1024;
// Of shared components, the numbers that threads' sums may take together.
constexpr int64_t kMixturePartials = int64_t(1) << 22;
// Terms of a density, one for each row, component and feature, that a thread should get at least: some 5 us.
constexpr int64_t kMixtureGrain = 30000;

// Philox groups at a time: one AVX-512 register of 64-bit lanes, two of AVX2, four of NEON or SSE2.
constexpr int kNoiseLanes = 8;

// Chunks that a thread should get at least: below, starting threads costs more than it saves (some 5 us, the time of
// 16 chunks of the objective; a chunk of the sampler takes twice as long).
constexpr int64_t kObjectiveGrain = 16;
constexpr int64_t kLatentGrain = 8;
constexpr int64_t kCountsGrain = 4;

}  // namespace cpu
}  // namespace pyvae
