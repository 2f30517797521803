// What may be tuned of the CUDA kernels, each with its reason. The last bits of sums depend on the shape and on the
// numbers under "partition", and on nothing else.
#pragma once

#include <cstdint>

namespace pyvae {
namespace cuda {

// PYVAE_TUNED(name, value) is `value`, or with -DPYVAE_name=number that number.
#define PYVAE_TUNED(name, value) number_or(PYVAE_TEXT(PYVAE_##name), value)
#define PYVAE_TEXT(macro) PYVAE_QUOTED(macro)
#define PYVAE_QUOTED(text) #text

// The number that `text` is; `value` where it is a name, that of a macro which is not defined.
constexpr int64_t number_or(const char* text, int64_t value) {
  if (*text < '0' || *text > '9') return value;
  int64_t number = 0;
  for (; *text; ++text) number = 10 * number + (*text - '0');
  return number;
}

// ---- a block ----

// Eight warps: enough for their barriers to be cheap, few enough for several blocks an SM.
constexpr int kThreads = 256;
constexpr int kWarp = 32;  // the hardware's
// Blocks that must fit a multiprocessor at once, which bounds a thread's registers: to 80 where float vectors want that
// many loads in flight and terms of polynomials; to 64 where doubles need no more; to 48 for the gradient alone; and to
// 80 in general kernels, which keep an offset for every element.
template <class T>
constexpr int kPackedBlocks = sizeof(T) == 4 ? PYVAE_TUNED(kPackedBlocks, 3) : 4;
constexpr int kGradientBlocks = PYVAE_TUNED(kGradientBlocks, 5), kGeneralBlocks = 3;
// Where they would spill, less: of the sampler's general backward kernel, which has a prior's gradients besides, and
// sums over samples; and of the gradient alone in double, and with a pos_weight, whose formula stands in the kernel
// twice.
constexpr int kGeneralLatentBackwardBlocks = 2;
constexpr int kLargeGradientBlocks = 4, kDoubleGradientBlocks = 3;
// Of a scale whose prior takes many registers, in the sampler's general kernels.
constexpr int kLongPriorBlocks = 2;
// And of those of counts, whose formulas are long.
template <class T>
constexpr int kLongBlocks = sizeof(T) == 4 ? kGeneralBlocks : 2;
// And of the kernel that only multiplies a gradient: to 40 registers.
constexpr int kRescaleBlocks = 6;

// ---- a thread ----

// Elements at a time. Packed: two 16-byte loads of float32 and one of 16 bits, the noise of two Philox calls; doubles
// are 16 bytes by themselves. General: element by element anyhow, so that fewer of their offsets are kept.
template <class T>
constexpr int kPackedVector = sizeof(T) == 4 ? PYVAE_TUNED(kPackedVector, 8) : 2;
template <class T>
constexpr int kGeneralVector = sizeof(T) == 4 ? 4 : 2;
// Of the kernel that only multiplies a gradient: one 16-byte load and store.
template <class T>
constexpr int kRescaleVector = 16 / sizeof(T);

// ---- partition ----

constexpr int kVector = 8;  // parts of rows begin at multiples of it: the widest of the vectors above
static_assert(kVector % kPackedVector<float> == 0, "a part begins where a vector does");

// Elements of a part of a row: as many as give every SM of an H200 (132) eight blocks, which evens out their ends, but
// at least half a vector for each thread, and no more than four iterations of a block, after which its prologue and
// epilogue no longer count. Only above kMostParts parts, 64 KiB of partial sums, do they grow further.
constexpr int64_t kGoodBlocks = 1056;
constexpr int64_t kSmallPart = PYVAE_TUNED(kSmallPart, 1024), kLargePart = PYVAE_TUNED(kLargePart, 8192);
constexpr int64_t kMostParts = PYVAE_TUNED(kMostParts, 8192);

// Elements of the short rows that a block sums at a time: they pass through 8 KiB of shared memory, one vector a
// thread.
constexpr int kSpan = 2048;
// Blocks that short rows are spread over, where they fill no more (two for each SM); and, where there are many, the
// spans that one block takes one after the other, while there still are kGoodBlocks.
constexpr int64_t kSpread = 264, kMostSpans = 8;

// ---- tiles ----

// Blocks that must fit a multiprocessor at once: as above, and where every stride is followed, as many as do not spill.
constexpr int kPackedTileBlocks = 3;
template <class T>
constexpr int kGeneralTileBlocks = sizeof(T) == 4 ? 2 : 1;

// Elements that a thread takes together of a row: a 16-byte load of float32. And at most so many of these vectors, in
// as much shared memory as a kernel has without asking (48 KiB, less what sums pass through).
constexpr int kTileVector = 4, kMostTileVectors = 4, kTileBytes = 47 << 10;
// Threads of a row: with two warps a block takes four rows at once, so that few rows make many blocks.
constexpr int kMostTileLanes = PYVAE_TUNED(kMostTileLanes, 64);
// Rows that a thread takes one after the other: as many as leave four blocks for each SM of an H200, and so few that
// they can be summed in T.
constexpr int64_t kTileBlocks = PYVAE_TUNED(kTileBlocks, 528), kMostTileRows = 32;
// Vectors of a thread where there is nothing to keep of them.
constexpr int kFinishVectors = 8;
// Rows whose upstream gradients a thread compares, until so many blocks do: what they have found, up to 4 KiB, is read
// by every warp of the next launch.
constexpr int64_t kComparedRows = 16, kMostComparing = 128;
// Normalizers: vectors a lane up to which a warp takes a row alone, and elements up to which a block does.
constexpr int64_t kWarpVectors = 8, kNormalizerPart = 32768;

// ---- mixtures ----

// Features up to which a thread holds a row of z, and its gradient, in registers.
template <class T>
constexpr int kNarrowFeatures = sizeof(T) == 4 ? 64 : 32;
constexpr int kFewFeatures = 16;  // for up to which there is a kernel of its own, as for one
// Blocks that must fit a multiprocessor at once, which bounds a thread's registers: where a thread holds up to 16
// features; of more, and in kernels by warps, as many as there are.
template <class T>
constexpr int kNarrowBlocks = sizeof(T) == 4 ? 3 : 2;
// Shared memory for components, of which each is read by all rows of a block; and the most of them, of few features.
constexpr int kTileOfComponents = 24 << 10, kMostOfComponents = 1024;
// Sums over rows, by component: rows at a time, one for each warp, and components' features, two for each thread. Of
// one feature, more rows at a time; of rows that no thread holds, features and components for each thread.
constexpr int kRowsAtOnce = kThreads / kWarp, kOwnCells = 2, kElementsAtOnce = 64;
constexpr int kWideFeatures = 4, kWideComponents = 4;
// Rows that are summed in T, then in double; and the fewest of a part, of which each has sums of its own.
constexpr int kRowsInT = 32;
constexpr int64_t kRowsOfPart = 128;
// Samples up to which a thread sums those of a posterior's element alone.
constexpr int64_t kFewSamples = 64;

}  // namespace cuda
}  // namespace pyvae
