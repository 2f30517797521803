// The gradients of log densities under mixtures. Forward saves the sum of the exponentials of a row's terms, so one
// pass over the components is enough. Rows are processed in strips: for some components at a time, all tiles of a strip
// add to the components' sums, lane by lane. At the end of a strip the lanes are folded and added in double.
#pragma once

#include "cpu/mixture.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
struct BackwardRoom {
  Components<T> components;
  T* z;              // [tiles, L, kTileRows]
  T* grad;           // [tiles, L, kTileRows], by z
  T* top;            // [tiles, W, kTileRows], W = 1, or L if `elements`
  T* sum;            // [tiles, W, kTileRows]
  T* upstream;       // [tiles, W, kTileRows], divided by the sum
  int64_t together;  // components at a time
  T* first;          // [together, L, kSumLanes], sums of r y
  T* second;         // [together, L, kSumLanes], sums of r y^2
  T* weight;         // [together, W, kSumLanes], sums of r
  double* sums;      // [sums_each], if a group has one part

  BackwardRoom(const Mixture& a, Room& room) : components(a, room) {
    const int64_t L = a.features, wide = a.width();
    const int64_t tiles = at_most(kStripRows, a.rows / a.groups + kTileRows - 1) / kTileRows;
    z = room.take<T>(tiles * L * kTileRows), grad = room.take<T>(tiles * L * kTileRows);
    top = room.take<T>(tiles * wide * kTileRows), sum = room.take<T>(tiles * wide * kTileRows);
    upstream = room.take<T>(tiles * wide * kTileRows);
    const int64_t each = 2 * (L > 0 ? L : 1) * kSumLanes * int64_t(sizeof(T));
    together = at_least(at_most(kMomentBytes / each, a.components), int64_t(1));
    first = room.take<T>(together * L * kSumLanes), second = room.take<T>(together * L * kSumLanes);
    weight = room.take<T>(together * wide * kSumLanes);
    sums = room.take<double>(a.sums_each());
  }
};

// ---- a tile's part --------------------------------------------------------------------------------------------------

// The component's share r of each row's upstream gradient. r [kTileRows] holds the terms on entry. The sums of r are
// added to weight [kSumLanes].
template <class T>
inline void shares(const T* __restrict top, const T* __restrict upstream, T* __restrict r, T* __restrict weight) {
  for (int i = 0; i < kTileRows; ++i) r[i] = upstream[i] * share_of(r[i] - top[i]);
  for (int lane = 0; lane < kSumLanes; ++lane) {
    T total = weight[lane];
    PYVAE_UNROLL
    for (int i = 0; i < kTileRows; i += kSumLanes) total += r[i + lane];
    weight[lane] = total;
  }
}

// One feature of N components: z, grad [kTileRows]; r [N, kTileRows]; first, second [kSumLanes], where the next
// component is `apart` elements further.
template <int N, class T>
inline void add_gradient(const T* __restrict z, const T (*__restrict r)[kTileRows], const T* mean, const T* inverse,
                         int64_t features, T* __restrict grad, T* __restrict first, T* __restrict second,
                         int64_t apart) {
  T m[N], v[N];
  for (int j = 0; j < N; ++j) m[j] = mean[j * features], v[j] = inverse[j * features];
  for (int lane = 0; lane < kSumLanes; ++lane) {
    Moments<T> sums[N];
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) sums[j] = {T(0), first[j * apart + lane], second[j * apart + lane]};
    PYVAE_UNROLL
    for (int i = lane; i < lane + kTileRows; i += kSumLanes) {
      T by_z = grad[i];
      PYVAE_UNROLL
      for (int j = 0; j < N; ++j) {
        const T y = standardized(z[i], m[j], v[j]);
        sums[j].add(r[j][i], y);
        by_z = add_by_z(r[j][i], y, v[j], by_z);
      }
      grad[i] = by_z;
    }
    PYVAE_UNROLL
    for (int j = 0; j < N; ++j) first[j * apart + lane] = sums[j].first, second[j * apart + lane] = sums[j].second;
  }
}

// A tile's pointers for components k and on, which are the j-th and on of the components in work.
template <class T>
struct Part {
  const T* mean;      // [.., L]
  const T* inverse;   // [.., L]
  const T* peak;      // [..], or [.., L] if `elements`
  const T* z;         // [L, kTileRows]
  const T* top;       // [W, kTileRows]
  const T* upstream;  // [W, kTileRows]
  T* grad;            // [L, kTileRows]
  T* first;           // [.., L, kSumLanes]
  T* second;          // [.., L, kSumLanes]
  T* weight;          // [.., W, kSumLanes]

  Part(const Mixture& a, const BackwardRoom<T>& room, int64_t k, int64_t j, int64_t tile) {
    const int64_t L = a.features, wide = a.width();
    mean = room.components.mean + k * L, inverse = room.components.inverse + k * L;
    peak = room.components.peak + k * wide;
    z = room.z + tile * L * kTileRows, grad = room.grad + tile * L * kTileRows;
    top = room.top + tile * wide * kTileRows, upstream = room.upstream + tile * wide * kTileRows;
    first = room.first + j * L * kSumLanes, second = room.second + j * L * kSumLanes;
    weight = room.weight + j * wide * kSumLanes;
  }
};

// N components side by side, so that the gradients by z are loaded and stored once for all of them.
template <int N, class T>
PYVAE_NOINLINE void add_joint(const Part<T>& part, int64_t L) {
  alignas(64) T r[N][kTileRows];
  for (int j = 0; j < N; ++j) {
    joint_terms(part.z, part.mean + j * L, part.inverse + j * L, part.peak[j], L, r[j]);
    shares(part.top, part.upstream, r[j], part.weight + j * kSumLanes);
  }
  for (int64_t l = 0; l < L; ++l) {
    add_gradient<N>(part.z + l * kTileRows, r, part.mean + l, part.inverse + l, L, part.grad + l * kTileRows,
                    part.first + l * kSumLanes, part.second + l * kSumLanes, L * kSumLanes);
  }
}

template <class T>
PYVAE_NOINLINE void add_elements(const Part<T>& part, int64_t L) {
  for (int64_t l = 0; l < L; ++l) {
    const int64_t at = l * kTileRows, lanes = l * kSumLanes;
    alignas(64) T r[1][kTileRows];
    element_terms(part.z + at, part.mean[l], part.inverse[l], part.peak[l], r[0]);
    shares(part.top + at, part.upstream + at, r[0], part.weight + lanes);
    add_gradient<1>(part.z + at, r, part.mean + l, part.inverse + l, L, part.grad + at, part.first + lanes,
                    part.second + lanes, 0);
  }
}

// ---- a strip --------------------------------------------------------------------------------------------------------

template <class T>
void fold(const T* lanes, int64_t n, double* sums) {  // [n, kSumLanes], [n]
  for (int64_t i = 0; i < n; ++i) sums[i] += SumLanes<T>::fold(lanes + i * kSumLanes);
}

template <class T>
void add_strip(const Mixture& a, const BackwardRoom<T>& room, int64_t tiles, double* sums) {
  const int64_t K = a.components, L = a.features, wide = a.width();
  for (int64_t i = 0; i < tiles * L * kTileRows; ++i) room.grad[i] = T(0);
  for (int64_t k = 0; k < K; k += room.together) {
    const int64_t n = at_most(room.together, K - k);
    for (int64_t i = 0; i < n * L * kSumLanes; ++i) room.first[i] = room.second[i] = T(0);
    for (int64_t i = 0; i < n * wide * kSumLanes; ++i) room.weight[i] = T(0);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      int64_t j = 0;
      for (; !a.elements && j + 2 <= n; j += 2) add_joint<2>(Part<T>(a, room, k + j, j, tile), L);
      for (; j < n; ++j) {
        const Part<T> part(a, room, k + j, j, tile);
        a.elements ? add_elements(part, L) : add_joint<1>(part, L);
      }
    }
    fold(room.first, n * L, sums + k * L);
    fold(room.second, n * L, sums + K * L + k * L);
    fold(room.weight, n * wide, sums + 2 * K * L + k * wide);
  }
}

// The rows [start, last) of a group: writes their gradients by z, and adds their part of the components' gradients to
// sums [sums_each].
template <class T>
void backward_rows(const Mixture& a, const BackwardRoom<T>& room, int64_t group, int64_t start, int64_t last,
                   double* sums) {
  const int64_t L = a.features, wide = a.width();
  for (int64_t strip = start; strip < last; strip += kStripRows) {
    const int64_t rows = at_most(kStripRows, last - strip), tiles = (rows + kTileRows - 1) / kTileRows;
    const auto tile_of = [&](int64_t t) {
      const int64_t first = strip + t * kTileRows;
      return Tile{first, a.groups, group, int(at_most(int64_t(kTileRows), last - first))};
    };
    for (int64_t t = 0; t < tiles; ++t) {
      const Tile tile = tile_of(t);
      T* const upstream = room.upstream + t * wide * kTileRows;  // [W, kTileRows]
      T* const sum = room.sum + t * wide * kTileRows;            // [W, kTileRows]
      load_tile(tile, a.z, L, room.z + t * L * kTileRows);
      load_tile(tile, a.top, wide, room.top + t * wide * kTileRows);
      load_tile(tile, a.sum, wide, sum);
      load_tile(tile, a.upstream, wide, upstream);
      for (int64_t i = 0; i < wide * kTileRows; ++i) upstream[i] /= sum[i];
      for (int64_t w = 0; w < wide; ++w) {  // missing rows contribute nothing
        for (int i = tile.n; i < kTileRows; ++i) upstream[w * kTileRows + i] = T(0);
      }
    }
    add_strip(a, room, tiles, sums);
    for (int64_t t = 0; t < tiles; ++t) store_tile(tile_of(t), room.grad + t * L * kTileRows, L, a.grad_z);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
