// How the kernels that keep rows apart cut a call: into tiles of some rows by some columns, a block each. What a row's
// sums are made of depends on its length alone, so that their bits are the same in every batch and at every place.
#pragma once

#include "cuda/tuning.h"
#include "math/platform.h"

namespace pyvae {
namespace cuda {

// Vectors that a thread may take of a row, such that what a tile keeps of each element fits the shared memory: its
// derivative, one by each parameter, and its place in a queue; and a value for each element of one vector.
constexpr int most_tile_vectors(int parameters, int bytes) {
  const int vector = kThreads * kTileVector,
            most = (kTileBytes - vector * bytes) / (vector * ((1 + parameters) * bytes + 2));
  return most < kMostTileVectors ? most : kMostTileVectors;
}

struct Tiling {
  int lanes = 1;                      // threads of a row, a power of 2: kThreads / lanes rows are taken at once
  int vectors = 1;                    // of kTileVector elements, that each of them takes of a row
  int64_t slices = 1;                 // of a row's columns
  int64_t groups = 0, rows_each = 1;  // of rows

  Tiling() = default;
  Tiling(int64_t rows, int64_t features, int most_vectors) {
    const int64_t all = divide_up(features, kTileVector);  // vectors of a row
    while (lanes < kWarp / 2 && lanes < all) lanes *= 2;
    if (lanes < all) {  // rows that are longer than half a warp's vectors
      lanes = kWarp;
      while (lanes < kMostTileLanes && int64_t(lanes) * most_vectors < all) lanes *= 2;
      const int64_t even = divide_up(all, lanes);
      vectors = int(even < most_vectors ? even : most_vectors);
      slices = divide_up(all, int64_t(lanes) * vectors);
    }
    const int64_t even = divide_up(divide_up(rows * slices, kTileBlocks), rows_at_once());
    rows_each = (even < 1 ? 1 : even < kMostTileRows ? even : kMostTileRows) * rows_at_once();
    groups = divide_up(rows, rows_each);
  }

  PYVAE_HD int rows_at_once() const { return kThreads / lanes; }
  PYVAE_HD bool is_short() const { return lanes < kWarp; }  // several rows to a warp
  PYVAE_HD int warps() const { return is_short() ? 1 : lanes / kWarp; }
  PYVAE_HD int64_t parts() const { return slices * warps(); }  // of a row's sums
  PYVAE_HD int64_t columns() const { return int64_t(lanes) * vectors * kTileVector; }
  PYVAE_HD int64_t blocks() const { return groups * slices; }

 private:
  static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

// And for the normalizers: parts of rows, each by a warp's lanes or by a whole block.
struct NormalizerTiling {
  int lanes = 1;       // a power of 2 up to kWarp, or kThreads
  int64_t parts = 1;   // of a row
  int64_t length = 0;  // of a part

  NormalizerTiling() = default;
  explicit NormalizerTiling(int64_t features) {
    const int64_t all = (features + kTileVector - 1) / kTileVector;
    while (lanes < kWarp && lanes < all) lanes *= 2;
    if (all > int64_t(kWarp) * kWarpVectors) lanes = kThreads;
    parts = features > kNormalizerPart ? (features + kNormalizerPart - 1) / kNormalizerPart : 1;
    length = (all + parts - 1) / parts * kTileVector;
  }
  PYVAE_HD int rows_at_once() const { return kThreads / lanes; }
};

}  // namespace cuda
}  // namespace pyvae
