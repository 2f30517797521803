// The gradients of log densities under mixtures. What forward wrote is what the terms are divided by, so one pass over
// the components does. Rows go in strips: for some components at a time all tiles of a strip add to their sums, lane by
// lane, which are folded and added in double at the strip's end.
#pragma once

#include "cpu/mixture.h"

namespace pyvae {
inline namespace PYVAE_ISA {

constexpr int kStripTiles = int(kStripRows / kTileRows);

template <class T>
struct BackwardRoom {
  Components<T> components;
  T* z;              // [tiles, L, kTileRows]
  T* grad;           // [tiles, L, kTileRows], by z
  T* values;         // [tiles, W, kTileRows], W = 1, or of elements L
  T* upstream;       // [tiles, W, kTileRows]
  int64_t together;  // components at a time
  T* first;          // [together, L, kSumLanes], sums of r y
  T* second;         // [together, L, kSumLanes], of r y^2
  T* weight;         // [together, W, kSumLanes], of r
  double* sums;      // [sums_each], where a group has one part

  BackwardRoom(const Mixture& a, Room& room) : components(a, room) {
    const int64_t L = a.features, wide = a.elements ? L : 1;
    z = room.take<T>(kStripTiles * L * kTileRows), grad = room.take<T>(kStripTiles * L * kTileRows);
    values = room.take<T>(kStripTiles * wide * kTileRows), upstream = room.take<T>(kStripTiles * wide * kTileRows);
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
inline void shares(const T* __restrict values, const T* __restrict upstream, T* __restrict r, T* __restrict weight) {
  for (int i = 0; i < kTileRows; ++i) r[i] = upstream[i] * exp_negative(r[i] - values[i]);
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
  const int64_t L = a.features, wide = a.elements ? L : 1;
  const Components<T>& c = room.components;
  const T* const mean = c.mean + k * L;                               // [L]
  const T* const inverse = c.inverse + k * L;                         // [L]
  const T* const z = room.z + tile * L * kTileRows;                   // [L, kTileRows]
  const T* const values = room.values + tile * wide * kTileRows;      // [W, kTileRows]
  const T* const upstream = room.upstream + tile * wide * kTileRows;  // [W, kTileRows]
  T* const grad = room.grad + tile * L * kTileRows;                   // [L, kTileRows]
  T* const first = room.first + j * L * kSumLanes;                    // [L, kSumLanes]
  T* const second = room.second + j * L * kSumLanes;                  // [L, kSumLanes]
  T* const weight = room.weight + j * wide * kSumLanes;               // [W, kSumLanes]
  alignas(64) T r[kTileRows];
  if (!a.elements) {
    joint_terms(z, mean, inverse, c.peak[k], L, r);
    shares(values, upstream, r, weight);
    return add_gradients(z, r, mean, inverse, L, grad, first, second);
  }
  for (int64_t l = 0; l < L; ++l) {
    const int64_t at = l * kTileRows;
    element_terms(z + at, mean[l], inverse[l], c.peak[k * L + l], r);
    shares(values + at, upstream + at, r, weight + l * kSumLanes);
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
  const int64_t K = a.components, L = a.features, wide = a.elements ? L : 1;
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

// ---- from sums to gradients -----------------------------------------------------------------------------------------

// The gradients of component k of a group, from the sums of its `parts`, in their order: sums [parts, sums_each].
template <class Scale, class T>
PYVAE_NOINLINE void finish(const Mixture& a, int64_t group, int64_t k, const double* sums, int64_t parts) {
  const int64_t K = a.components, L = a.features, wide = a.elements ? L : 1, each = a.sums_each();
  const int64_t component = group * K + k, start = component * L;
  const bool absent = log_weight(a, component) == -Real<double>::kInfinity;
  const T* const scale = static_cast<const T*>(a.scale) + start;  // [L]
  T* const grad_mean = static_cast<T*>(a.grad_mean) + start;      // [L]
  T* const grad_scale = static_cast<T*>(a.grad_scale) + start;    // [L]
  const Clamp<T> clamp{T(a.low), T(a.high)};
  const auto total = [&](int64_t at) {
    double out = 0;
    for (int64_t part = 0; part < parts; ++part) out += sums[part * each + at];
    return out;
  };
  double weight = 0;
  for (int64_t w = 0; w < wide; ++w) weight += total(2 * K * L + k * wide + w);
  for (int64_t l = 0; l < L; ++l) {
    const Width<T> width = Scale::width(clamp(scale[l]));
    const Moments<double> moments = {a.elements ? total(2 * K * L + k * L + l) : weight, total(k * L + l),
                                     total(K * L + k * L + l)};
    grad_mean[l] = absent ? T(0) : T(moments.by_mean(double(width.inverse)));
    grad_scale[l] = absent ? T(0) : clamp.gradient(scale[l], T(moments.by_scale(double(width.slope))));
  }
  a.grad_weight[component] = weight;
}

template <class Scale, class T>
void mixture_backward_of(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  Room memory(scratch);
  BackwardRoom<T> room(a, memory);
  const MixtureUnits units(a, /*backward=*/true);
  const int64_t L = a.features, wide = a.elements ? L : 1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t group = unit / units.parts, start = unit % units.parts * units.rows_each;
    const int64_t last = at_most(start + units.rows_each, units.group_rows);
    double* const sums = a.sums ? a.sums + unit * a.sums_each() : room.sums;  // [sums_each]
    for (int64_t i = 0; i < a.sums_each(); ++i) sums[i] = 0;
    load<Scale>(a, group, room.components);
    for (int64_t strip = start; strip < last; strip += kStripRows) {
      const int64_t rows = at_most(kStripRows, last - strip), tiles = (rows + kTileRows - 1) / kTileRows;
      const auto tile_of = [&](int64_t t) {
        const int64_t first = strip + t * kTileRows;
        return Tile{first, a.groups, group, int(at_most(int64_t(kTileRows), last - first))};
      };
      for (int64_t t = 0; t < tiles; ++t) {
        const Tile tile = tile_of(t);
        T* const upstream = room.upstream + t * wide * kTileRows;  // [W, kTileRows]
        load_tile(tile, a.z, L, room.z + t * L * kTileRows);
        load_tile(tile, a.values, wide, room.values + t * wide * kTileRows);
        load_tile(tile, a.upstream, wide, upstream);
        for (int64_t w = 0; w < wide; ++w) {  // rows that are not there have no part
          for (int i = tile.n; i < kTileRows; ++i) upstream[w * kTileRows + i] = T(0);
        }
      }
      add_strip(a, room, tiles, sums);
      for (int64_t t = 0; t < tiles; ++t) store_tile(tile_of(t), room.grad + t * L * kTileRows, L, a.grad_z);
    }
    if (a.sums || !a.grad_mean) continue;
    for (int64_t k = 0; k < a.components; ++k) finish<Scale, T>(a, group, k, sums, 1);
  }
}

template <class T>
void mixture_backward(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  visit(Scales{}, a.scale_kind,
        [&](auto scale) { mixture_backward_of<typename decltype(scale)::type, T>(a, begin, end, scratch); });
}

template <class T>
void mixture_finish(const Mixture& a, int64_t begin, int64_t end) {
  const int64_t parts = MixtureUnits(a, /*backward=*/true).parts;
  visit(Scales{}, a.scale_kind, [&](auto scale) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / a.components;
      finish<typename decltype(scale)::type, T>(a, group, i % a.components, a.sums + group * parts * a.sums_each(),
                                                parts);
    }
  });
}

template <class T>
int64_t mixture_scratch(const Mixture& a, bool backward) {
  Room room(nullptr);
  if (backward) {
    BackwardRoom<T> all(a, room);
  } else {
    ForwardRoom<T> all(a, room);
  }
  return room.used();
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
