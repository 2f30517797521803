// The gradients of log densities under mixtures. What the exponentials of a row's terms add up to is known from
// forward, so one pass over the components does. Rows go in strips: for some components at a time all tiles of a strip
// add to their sums, lane by lane, which are folded and added in double at the strip's end.
#pragma once

#include "cpu/mixture.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
struct BackwardRoom {
  Components<T> components;
  T* z;              // [tiles, L, kTileRows]
  T* grad;           // [tiles, L, kTileRows], by z
  T* top;            // [tiles, W, kTileRows], W = 1, or of elements L
  T* sum;            // [tiles, W, kTileRows]
  T* upstream;       // [tiles, W, kTileRows], over the sum
  int64_t together;  // components at a time
  T* first;          // [together, L, kSumLanes], sums of r y
  T* second;         // [together, L, kSumLanes], of r y^2
  T* weight;         // [together, W, kSumLanes], of r
  double* sums;      // [sums_each], where a group has one part

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

// The share that a component has of each row's upstream gradient, r: terms, then r [kTileRows]; their sums to weight
// [kSumLanes].
template <class T>
inline void shares(const T* __restrict top, const T* __restrict upstream, T* __restrict r, T* __restrict weight) {
  for (int i = 0; i < kTileRows; ++i) r[i] = upstream[i] * exp_negative(r[i] - top[i]);
  for (int lane = 0; lane < kSumLanes; ++lane) {
    T total = weight[lane];
    PYVAE_UNROLL
    for (int i = 0; i < kTileRows; i += kSumLanes) total += r[i + lane];
    weight[lane] = total;
  }
}

// One feature of one component: z, r, grad [kTileRows]; first, second [kSumLanes].
template <class T>
inline void add_gradient(const T* __restrict z, const T* __restrict r, T mean, T inverse, T* __restrict grad,
                         T* __restrict first, T* __restrict second) {
  for (int lane = 0; lane < kSumLanes; ++lane) {
    Moments<T> sums = {T(0), first[lane], second[lane]};
    PYVAE_UNROLL
    for (int i = lane; i < lane + kTileRows; i += kSumLanes) {
      const T y = standardized(z[i], mean, inverse);
      sums.add(r[i], y);
      grad[i] = add_by_z(r[i], y, inverse, grad[i]);
    }
    first[lane] = sums.first, second[lane] = sums.second;
  }
}

template <class T>
PYVAE_NOINLINE void add_gradients(const T* z, const T* r, const T* mean, const T* inverse, int64_t L, T* grad, T* first,
                                  T* second) {
  for (int64_t l = 0; l < L; ++l) {
    add_gradient(z + l * kTileRows, r, mean[l], inverse[l], grad + l * kTileRows, first + l * kSumLanes,
                 second + l * kSumLanes);
  }
}

// Component k of a group, the j-th of those that are at work, over one tile of the strip.
template <class T>
void add_component(const Mixture& a, const BackwardRoom<T>& room, int64_t k, int64_t j, int64_t tile) {
  const int64_t L = a.features, wide = a.width();
  const Components<T>& c = room.components;
  const T* const mean = c.mean + k * L;                               // [L]
  const T* const inverse = c.inverse + k * L;                         // [L]
  const T* const z = room.z + tile * L * kTileRows;                   // [L, kTileRows]
  const T* const top = room.top + tile * wide * kTileRows;            // [W, kTileRows]
  const T* const upstream = room.upstream + tile * wide * kTileRows;  // [W, kTileRows]
  T* const grad = room.grad + tile * L * kTileRows;                   // [L, kTileRows]
  T* const first = room.first + j * L * kSumLanes;                    // [L, kSumLanes]
  T* const second = room.second + j * L * kSumLanes;                  // [L, kSumLanes]
  T* const weight = room.weight + j * wide * kSumLanes;               // [W, kSumLanes]
  alignas(64) T r[kTileRows];
  if (!a.elements) {
    joint_terms(z, mean, inverse, c.peak[k], L, r);
    shares(top, upstream, r, weight);
    return add_gradients(z, r, mean, inverse, L, grad, first, second);
  }
  for (int64_t l = 0; l < L; ++l) {
    const int64_t at = l * kTileRows;
    element_terms(z + at, mean[l], inverse[l], c.peak[k * L + l], r);
    shares(top + at, upstream + at, r, weight + l * kSumLanes);
    add_gradient(z + at, r, mean[l], inverse[l], grad + at, first + l * kSumLanes, second + l * kSumLanes);
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
      for (int64_t j = 0; j < n; ++j) add_component(a, room, k + j, j, tile);
    }
    fold(room.first, n * L, sums + k * L);
    fold(room.second, n * L, sums + K * L + k * L);
    fold(room.weight, n * wide, sums + 2 * K * L + k * wide);
  }
}

// The rows [start, last) of a group: their gradients by z, and their part of the components': sums [sums_each], added
// to.
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
      for (int64_t w = 0; w < wide; ++w) {  // rows that are not there have no part
        for (int i = tile.n; i < kTileRows; ++i) upstream[w * kTileRows + i] = T(0);
      }
    }
    add_strip(a, room, tiles, sums);
    for (int64_t t = 0; t < tiles; ++t) store_tile(tile_of(t), room.grad + t * L * kTileRows, L, a.grad_z);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
