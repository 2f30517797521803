// Log densities of posteriors, with one Gaussian per sample of the batch. The posterior's elements are split into
// chunks. For each chunk the widths are computed once, then all samples are evaluated in turn. No sum is shared between
// threads.
#pragma once

#include "cpu/mixture.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// The chunks of a unit of a posterior: one chunk of short rows, or all chunks of a long row.
template <class Visit>
void for_each_chunk(const Mixture& a, int64_t unit, Visit visit) {
  const Chunks chunks(a.posterior());
  const int64_t each = chunks.length > 0 ? chunks.per_row : 1;
  for (int64_t index = unit * each; index < (unit + 1) * each; ++index) visit(chunks[index]);
}

template <class T>
void map_log_density(const T* __restrict z, const T* __restrict mean, const T* __restrict inverse,
                     const T* __restrict peak, int64_t n, T* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = with_square(standardized(z[i], mean[i], inverse[i]), peak[i]);
}

// Offsets of a chunk in sample s: of its elements [n], and of its rows' values [rows].
inline int64_t elements_at(const Mixture& a, const Chunk& c, int64_t s) { return s * a.groups * a.features + c.first; }
inline int64_t rows_at(const Mixture& a, const Chunk& c, int64_t s) { return s * a.groups + c.row; }

// Returns false for a standard deviation below 0. totals: [samples], for a long row.
template <class Scale, class T>
bool posterior_forward(const Mixture& a, int64_t unit, double* totals) {
  const int64_t samples = a.rows / a.groups;
  T* const values = static_cast<T*>(a.values);  // [rows], or [rows, features] if `elements`
  const bool in_parts = !a.elements && Chunks(a.posterior()).length > 0;
  int negative = 0;
  for (int64_t s = 0; in_parts && s < samples; ++s) totals[s] = 0;
  for_each_chunk(a, unit, [&](const Chunk& c) {
    T inverse[kBuffer], peak[kBuffer], buffer[kBuffer];
    double sums[kBuffer];
    const T* const mean = static_cast<const T*>(a.mean) + c.first;    // [n]
    const T* const scale = static_cast<const T*>(a.scale) + c.first;  // [n]
    map_width<Scale, false, T>({T(a.low), T(a.high)}, scale, c.n, inverse, peak, nullptr);
    for (int i = 0; Scale::kNonNegative && i < c.n; ++i) negative |= scale[i] < T(0);
    for (int64_t s = 0; s < samples; ++s) {
      const int64_t at = elements_at(a, c, s);
      const T* const z = static_cast<const T*>(a.z) + at;  // [n]
      map_log_density(z, mean, inverse, peak, c.n, a.elements ? values + at : buffer);
      if (a.elements) continue;
      sum_rows(buffer, c.rows, c.features, sums);
      if (in_parts) totals[s] += sums[0];
      for (int r = 0; !in_parts && r < c.rows; ++r) values[rows_at(a, c, s) + r] = T(sums[r]);
    }
  });
  for (int64_t s = 0; in_parts && s < samples; ++s) values[s * a.groups + unit] = T(totals[s]);
  return !negative;
}

// Adds one sample's part. r: its upstream gradients. All arrays are [n].
template <class T>
void add_density_gradient(const T* __restrict z, const T* __restrict mean, const T* __restrict inverse,
                          const T* __restrict r, int n, T* __restrict grad, T* __restrict first, T* __restrict second,
                          T* __restrict weight) {
  for (int i = 0; i < n; ++i) {
    const T y = standardized(z[i], mean[i], inverse[i]);
    Moments<T> sums = {weight[i] + r[i], first[i], second[i]};
    sums.add(r[i], y);
    grad[i] = add_by_z(r[i], y, inverse[i], T(0));
    weight[i] = sums.weight, first[i] = sums.first, second[i] = sums.second;
  }
}

template <class Scale, class T>
void posterior_backward(const Mixture& a, int64_t unit) {
  const int64_t samples = a.rows / a.groups;
  const T* const upstream = static_cast<const T*>(a.upstream);  // [rows], or [rows, features] if `elements`
  for_each_chunk(a, unit, [&](const Chunk& c) {
    T inverse[kBuffer], slope[kBuffer], factors[kBuffer], first[kBuffer], second[kBuffer], weight[kBuffer];
    double all_first[kBuffer], all_second[kBuffer], all_weight[kBuffer];
    const T* const mean = static_cast<const T*>(a.mean) + c.first;    // [n]
    const T* const scale = static_cast<const T*>(a.scale) + c.first;  // [n]
    const Clamp<T> clamp{T(a.low), T(a.high)};
    map_width<Scale, true, T>(clamp, scale, c.n, inverse, nullptr, slope);
    for (int i = 0; i < c.n; ++i) all_first[i] = all_second[i] = all_weight[i] = 0;
    for (int64_t start = 0; start < samples; start += kStripRows) {
      for (int i = 0; i < c.n; ++i) first[i] = second[i] = weight[i] = T(0);
      for (int64_t s = start; s < at_most(start + kStripRows, samples); ++s) {
        const int64_t at = elements_at(a, c, s);
        if (!a.elements) repeat_rows(upstream + rows_at(a, c, s), c.rows, c.features, factors);
        add_density_gradient(static_cast<const T*>(a.z) + at, mean, inverse, a.elements ? upstream + at : factors, c.n,
                             static_cast<T*>(a.grad_z) + at, first, second, weight);
      }
      for (int i = 0; i < c.n; ++i) all_first[i] += double(first[i]), all_second[i] += double(second[i]);
      for (int i = 0; i < c.n; ++i) all_weight[i] += double(weight[i]);
    }
    if (!a.grad_mean) return;
    T* const grad_mean = static_cast<T*>(a.grad_mean) + c.first;    // [n]
    T* const grad_scale = static_cast<T*>(a.grad_scale) + c.first;  // [n]
    for (int i = 0; i < c.n; ++i) {
      const Moments<double> moments = {all_weight[i], all_first[i], all_second[i]};
      grad_mean[i] = T(moments.by_mean(double(inverse[i])));
      grad_scale[i] = clamp.gradient(scale[i], T(moments.by_scale(double(slope[i]))));
    }
  });
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
