// Log densities under mixtures: what values and gradients share.
//
// Narrow: a thread holds a row in registers, and takes components from shared memory; neighbors share a row and take
// components in turn. Wide: a warp takes a row from memory, a lane some of its features.
#pragma once

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "math/density.h"

namespace pyvae {
namespace cuda {

// What rows need of a component's feature. One of weight 0 is (0, 0), whatever its own numbers are.
template <class T>
struct alignas(2 * sizeof(T)) Cell {
  T mean, inverse;  // 1 / sigma
};

// e^x, x <= 0. In float the hardware's 2^y: beside the largest share, 1, it is off by less than one rounding.
__device__ __forceinline__ float share(float x) { return Counting::exp_score(x); }
__device__ __forceinline__ double share(double x) { return share_of(x); }

// The share that a component has of a row's upstream gradient, r, from its term.
template <class T>
struct Shares {
  T top, factor;  // factor: the upstream gradient, over the sum of all terms' exponentials

  // One component has the whole share: its term is the largest and the sum is 1, so neither was stored.
  __device__ __forceinline__ Shares(const Mixture& a, int64_t value)
      : top(0), factor(static_cast<const T*>(a.upstream)[value]) {
    if (a.top) top = static_cast<const T*>(a.top)[value], factor /= static_cast<const T*>(a.sum)[value];
  }
};

template <class T>
__device__ __forceinline__ T share_of_term(const Mixture& a, T top, T factor, T term) {
  return a.top ? factor * share(term - top) : factor;
}

// ---- where threads stand --------------------------------------------------------------------------------------------

// A problem's rows lie `groups` apart, and where each feature has its own density, z has others beside it.
struct RowsOf {
  int64_t group, feature;

  __device__ __forceinline__ RowsOf(const Mixture& a, int64_t problem) : group(problem), feature(0) {
    if (a.elements) group = divide(problem, a.features, feature);
  }
  __device__ __forceinline__ int64_t row(const Mixture& a, int64_t i) const { return i * a.groups + group; }
  // where row i begins in z, and its number among the values
  __device__ __forceinline__ int64_t in_z(const Mixture& a, int64_t i) const {
    return row(a, i) * a.features + feature;
  }
  __device__ __forceinline__ int64_t value(const Mixture& a, int64_t i) const {
    return a.elements ? in_z(a, i) : row(a, i);
  }
};

// A thread's row. A block's rows are those of one problem.
struct RowPlace {
  int64_t problem, in_z, value;
  int lane;     // among those that share the row
  bool exists;  // where it does not, the first row is

  __device__ __forceinline__ explicit RowPlace(const Mixture& a) {
    const int lanes = a.tiling.lanes;
    int64_t tile;
    problem = divide(blockIdx.x, a.tiling.row_tiles, tile);
    lane = int(threadIdx.x) & (lanes - 1);
    const int64_t i = tile * (kThreads / lanes) + int(threadIdx.x) / lanes;
    exists = i < a.tiling.rows;
    const RowsOf rows(a, problem);
    in_z = rows.in_z(a, exists ? i : 0), value = rows.value(a, exists ? i : 0);
  }
};

template <class T>
__device__ __forceinline__ const Cell<T>* cells_of(const Mixture& a, int64_t problem) {
  return static_cast<const Cell<T>*>(a.cells) + problem * a.tiling.features * a.components;
}
template <class T>
__device__ __forceinline__ const T* peaks_of(const Mixture& a, int64_t problem) {
  return static_cast<const T*>(a.peaks) + problem * a.components;  // [components]
}

// ---- narrow: components in shared memory ----------------------------------------------------------------------------

// What a kernel is compiled for: rows of at most kMost features, in steps of some, of which the last may be filled up.
template <class T_, int kMost_>
struct Narrow {
  using T = T_;
  static constexpr int kMost = kMost_, kStep = kMost == 1 ? 1 : kMost <= 16 ? 2 : 4;
  static constexpr int kFit = kTileOfComponents / int(kMost * sizeof(Cell<T>));
  static constexpr int kComponents = kFit < kMostOfComponents ? kFit : kMostOfComponents;
  static constexpr int kBlocks = kMost <= 16 ? kNarrowBlocks<T> : 1;  // that fit a multiprocessor
  static constexpr int kTogether = kMost == 1 ? 4 : 2;                // components, for one rescaling of the sum
  static constexpr int kAtOnce = kThreads * kOwnCells / kMost;        // components that a block sums over rows

  struct Tile {
    Cell<T> cells[kMost][kComponents];
    T peaks[kComponents];
  };
};

// `count` components of a problem, from `first` on.
template <class Way>
__device__ __forceinline__ void load_tile(const Mixture& a, int64_t problem, int64_t first, int count,
                                          typename Way::Tile& tile) {
  using T = typename Way::T;
  const int features = int(a.tiling.features), filled = (features + Way::kStep - 1) / Way::kStep * Way::kStep;
  const Cell<T>* const cells = cells_of<T>(a, problem) + first;  // [features, components]
  const T* const peaks = peaks_of<T>(a, problem) + first;
  const int thread = int(threadIdx.x);
  if constexpr (Way::kMost == 1) {
    for (int k = thread; k < count; k += kThreads) tile.cells[0][k] = cells[k];
  } else {
#pragma unroll 1
    for (int l = thread / kWarp; l < filled; l += kThreads / kWarp) {
      for (int k = thread % kWarp; k < count; k += kWarp)
        tile.cells[l][k] = l < features ? cells[l * a.components + k] : Cell<T>{T(0), T(0)};
    }
  }
  for (int k = thread; k < count; k += kThreads) tile.peaks[k] = peaks[k];
}

// A row, [features], filled up with 0.
template <class Way, class T>
__device__ __forceinline__ void load_row(const T* from, int features, T (&z)[Way::kMost]) {
  PYVAE_UNROLL
  for (int l = 0; l < Way::kMost; ++l) z[l] = l < features ? from[l] : T(0);
}

// Calls visit(l) for the features, in steps.
template <class Way, class Visit>
__device__ __forceinline__ void for_features(int features, Visit visit) {
  PYVAE_UNROLL
  for (int l = 0; l < Way::kMost; l += Way::kStep) {
    if (l >= features) continue;
    PYVAE_UNROLL
    for (int i = 0; i < Way::kStep; ++i) visit(l + i);
  }
}

// The terms of N components of a tile, k and each `lanes` further: log pi + log N(z).
template <class Way, int N, class T>
__device__ __forceinline__ void terms_of(const typename Way::Tile& tile, int k, int lanes, int features,
                                         const T (&z)[Way::kMost], T (&terms)[N]) {
  if constexpr (Way::kMost == 1) {
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) {
      const Cell<T> cell = tile.cells[0][k + j * lanes];
      terms[j] = with_square(standardized(z[0], cell.mean, cell.inverse), tile.peaks[k + j * lanes]);
    }
  } else {
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) terms[j] = T(0);
    for_features<Way>(features, [&](int l) {
      PYVAE_UNROLL
      for (int j = 0; j < N; ++j) {
        const Cell<T> cell = tile.cells[l][k + j * lanes];
        const T y = standardized(z[l], cell.mean, cell.inverse);
        terms[j] = fma(y, y, terms[j]);
      }
    });
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) terms[j] = with_squares(terms[j], tile.peaks[k + j * lanes]);
  }
}

// A number that the compiler knows.
template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

// Calls visit(Count, tile, k) for all components of a problem that are this lane's, some together: k and each `lanes`
// further. All threads of the block must call.
template <class Way, class Visit>
__device__ __forceinline__ void for_components(const Mixture& a, const RowPlace& at, typename Way::Tile& tile,
                                               Visit visit) {
  const int lanes = a.tiling.lanes;
#pragma unroll 1
  for (int64_t first = 0; first < a.components; first += Way::kComponents) {
    const int64_t rest = a.components - first;
    const int count = rest < Way::kComponents ? int(rest) : Way::kComponents;
    if (first > 0) __syncthreads();  // the tile before may still be read
    load_tile<Way>(a, at.problem, first, count, tile);
    __syncthreads();
    int k = at.lane;
#pragma unroll 1
    for (; k + (Way::kTogether - 1) * lanes < count; k += Way::kTogether * lanes) visit(Count<Way::kTogether>{}, k);
#pragma unroll 1
    for (; k < count; k += lanes) visit(Count<1>{}, k);
  }
}

// Launches the narrow kernel for a call's features: launch(Tag<Narrow<T, kMost>>()).
template <class T, class Launch>
const char* choose_narrow(const Mixture& a, const Launch& launch) {
  if (a.tiling.features == 1) return launch(Tag<Narrow<T, 1>>{});
  if (a.tiling.features <= kFewFeatures) return launch(Tag<Narrow<T, kFewFeatures>>{});
  return launch(Tag<Narrow<T, kNarrowFeatures<T>>>{});
}

// ---- wide: a warp a row ---------------------------------------------------------------------------------------------

// The squares of N components' features, summed over the warp: z [features], cells [N, features], beyond `components`
// the last one's. All lanes of a warp must call.
template <int N, class T>
__device__ __forceinline__ void wide_squares(const T* z, const Cell<T>* cells, int64_t components, int64_t features,
                                             T (&sums)[N]) {
  for (int j = 0; j < N; ++j) sums[j] = T(0);
#pragma unroll 1
  for (int64_t l = int(threadIdx.x) % kWarp; l < features; l += kWarp) {
    const T x = z[l];
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) {
      const Cell<T> cell = cells[(j < components ? j : components - 1) * features + l];
      const T y = standardized(x, cell.mean, cell.inverse);
      sums[j] = fma(y, y, sums[j]);
    }
  }
  PYVAE_UNROLL
  for (int j = 0; j < N; ++j) sums[j] = warp_sum(sums[j]);
}

}  // namespace cuda
}  // namespace pyvae
