// The log density's kernels: the loops over units, by rows or by features, and the step from sums to gradients.
#pragma once

#include "cpu/gaussian.h"
#include "cpu/mixture_backward.h"
#include "cpu/mixture_features.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- from sums to gradients -----------------------------------------------------------------------------------------

// The gradients of cells [begin, begin + n) of a group, n <= kChunk, from the sums of its `parts`, added in their
// order: sums [parts, sums_each]. Also the weight gradient of each component whose first cell is among them.
template <class Scale, class T>
PYVAE_NOINLINE void finish(const Mixture& a, int64_t group, int64_t begin, int n, const double* sums, int64_t parts) {
  const int64_t cells = a.cells(), L = a.features, wide = a.width(), each = a.sums_each();
  const int64_t start = group * cells + begin;
  const T* const scale = static_cast<const T*>(a.scale) + start;  // [n]
  T* const grad_mean = static_cast<T*>(a.grad_mean) + start;      // [n]
  T* const grad_scale = static_cast<T*>(a.grad_scale) + start;    // [n]
  const Clamp<T> clamp{T(a.low), T(a.high)};
  T inverse[kBuffer], slope[kBuffer];
  double first[kBuffer], second[kBuffer], weight[kBuffer];
  // f(k, from, to): cells [from, to) of these belong to component k.
  const auto for_each_component = [&](const auto& f) {
    for (int64_t k = begin / L, from = 0; from < n; ++k) {
      const int64_t to = at_most((k + 1) * L - begin, int64_t(n));
      f(k, from, to);
      from = to;
    }
  };
  map_width<Scale, true, T>(clamp, scale, n, inverse, nullptr, slope);
  for (int i = 0; i < n; ++i) first[i] = second[i] = weight[i] = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const double* const of_part = sums + part * each;
    const double* const of_weight = of_part + 2 * cells;  // [K, W]
    for (int i = 0; i < n; ++i) first[i] += of_part[begin + i], second[i] += of_part[cells + begin + i];
    if (a.elements) {
      for (int i = 0; i < n; ++i) weight[i] += of_weight[begin + i];
    } else {
      for_each_component([&](int64_t k, int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) weight[i] += of_weight[k];
      });
    }
  }
  for (int i = 0; i < n; ++i) {
    const Moments<double> moments = {weight[i], first[i], second[i]};
    grad_mean[i] = T(moments.by_mean(double(inverse[i])));
    grad_scale[i] = clamp.gradient(scale[i], T(moments.by_scale(double(slope[i]))));
  }
  for_each_component([&](int64_t k, int64_t from, int64_t to) {
    // The numbers of a component of weight 0 may be NaN, and 0 times NaN is NaN.
    const bool absent = a.log_weight && a.log_weight[group * a.components + k] == -Real<double>::kInfinity;
    for (int64_t i = from; absent && i < to; ++i) grad_mean[i] = grad_scale[i] = T(0);
    if (k * L < begin) return;
    double total = 0;
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t w = 0; w < wide; ++w) total += sums[part * each + 2 * cells + k * wide + w];
    }
    a.grad_weight[group * a.components + k] = total;
  });
}

// Chunks [begin, end) of the cells of one group.
template <class Scale, class T>
void finish_chunks(const Mixture& a, int64_t begin, int64_t end, const double* sums, int64_t parts, int64_t group) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * kChunk;
    finish<Scale, T>(a, group, first, int(at_most(int64_t(kChunk), a.cells() - first)), sums, parts);
  }
}

inline int64_t chunks_of(const Mixture& a) { return (a.cells() + kChunk - 1) / kChunk; }

template <class T>
void mixture_finish(const Mixture& a, int64_t begin, int64_t end) {
  const int64_t parts = MixtureUnits(a, /*backward=*/true).parts, chunks = chunks_of(a);
  visit(Scales{}, a.scale_kind, [&](auto scale) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / chunks, chunk = i % chunks;
      const double* const sums = a.sums + group * parts * a.sums_each();  // [parts, sums_each]
      finish_chunks<typename decltype(scale)::type, T>(a, chunk, chunk + 1, sums, parts, group);
    }
  });
}

// ---- units ----------------------------------------------------------------------------------------------------------

// Calls run(unit, group, first, last) for the rows of each unit, after its group's components are loaded. Returns false
// if the components are not legal.
template <class Scale, class T, class Run>
bool for_each_unit(const Mixture& a, bool backward, Components<T>& components, int64_t begin, int64_t end, Run run) {
  const MixtureUnits units(a, backward);
  bool legal = true;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t group = unit / units.parts, first = unit % units.parts * units.rows_each;
    legal &= load<Scale>(a, group, components);
    run(unit, group, first, at_most(first + units.rows_each, units.group_rows));
  }
  return legal;
}

template <class Scale, class T>
bool mixture_forward_of(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  if (a.is_posterior()) {
    bool legal = true;
    for (int64_t unit = begin; unit < end; ++unit)
      legal &= posterior_forward<Scale, T>(a, unit, static_cast<double*>(scratch));
    return legal;
  }
  Room memory(scratch);
  const auto run = [&](auto& room, const auto& rows) {
    return for_each_unit<Scale>(
        a, false, room.components, begin, end,
        [&](int64_t, int64_t group, int64_t first, int64_t last) { rows(a, room, group, first, last); });
  };
  if (a.by_features()) {
    FeatureRoom<T> room(a, memory, /*backward=*/false);
    return run(room, forward_features<T>);
  }
  ForwardRoom<T> room(a, memory);
  return run(room, forward_rows<T>);
}

template <class Scale, class T>
void mixture_backward_of(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  for (int64_t unit = begin; a.is_posterior() && unit < end; ++unit) posterior_backward<Scale, T>(a, unit);
  if (a.is_posterior()) return;
  Room memory(scratch);
  const auto run = [&](auto& room, const auto& rows) {
    for_each_unit<Scale>(a, true, room.components, begin, end,
                         [&](int64_t unit, int64_t group, int64_t first, int64_t last) {
                           double* const sums = a.sums ? a.sums + unit * a.sums_each() : room.sums;  // [sums_each]
                           for (int64_t i = 0; i < a.sums_each(); ++i) sums[i] = 0;
                           rows(a, room, group, first, last, sums);
                           if (a.grad_mean && !a.sums) finish_chunks<Scale, T>(a, 0, chunks_of(a), sums, 1, group);
                         });
  };
  if (a.by_features()) {
    FeatureRoom<T> room(a, memory, /*backward=*/true);
    return run(room, backward_features<T>);
  }
  BackwardRoom<T> room(a, memory);
  run(room, backward_rows<T>);
}

template <class T>
bool mixture_forward(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  return visit(Scales{}, a.scale_kind, [&](auto scale) {
    return mixture_forward_of<typename decltype(scale)::type, T>(a, begin, end, scratch);
  });
}

template <class T>
void mixture_backward(const Mixture& a, int64_t begin, int64_t end, void* scratch) {
  visit(Scales{}, a.scale_kind,
        [&](auto scale) { mixture_backward_of<typename decltype(scale)::type, T>(a, begin, end, scratch); });
}

template <class T>
int64_t mixture_scratch(const Mixture& a, bool backward) {
  Room room(nullptr);
  if (a.is_posterior()) {
    room.take<double>(a.rows / a.groups);  // totals of a long row
  } else if (a.by_features()) {
    FeatureRoom<T> all(a, room, backward);
  } else if (backward) {
    BackwardRoom<T> all(a, room);
  } else {
    ForwardRoom<T> all(a, room);
  }
  return room.used();
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
