// Log densities if a component has few rows, or if there is one component. SIMD vectors run over features. All terms of
// a row are available at once, in double, so backward recomputes them. With one component, the features may also have
// separate densities, without a sum.
#pragma once

#include "cpu/gaussian.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
struct FeatureRoom {
  Components<T> components;
  double* terms;  // [K], for one row
  T* shares;      // [K], for one row
  T* first;       // [K, L], sums of r y over a strip, for backward
  T* second;      // [K, L], sums of r y^2
  T* weight;      // [K, W], sums of r, W = 1, or L if `elements`
  T* grad;        // [L], by z
  double* sums;   // [sums_each], if a group has one part

  FeatureRoom(const Mixture& a, Room& room, bool backward)
      : components(a, room), terms(room.take<double>(a.components)), shares(room.take<T>(a.components)) {
    if (!backward) return;
    first = room.take<T>(a.cells()), second = room.take<T>(a.cells());
    weight = room.take<T>(a.components * a.width()), grad = room.take<T>(a.features);
    sums = room.take<double>(a.sums_each());
  }
};

template <class T>
void squares(const T* __restrict z, const T* __restrict mean, const T* __restrict inverse, int n, T* __restrict out) {
  for (int i = 0; i < n; ++i) {
    const T y = standardized(z[i], mean[i], inverse[i]);
    out[i] = y * y;
  }
}

// The terms of one row: z [L], terms [K].
template <class T>
PYVAE_NOINLINE void row_terms(const Mixture& a, const Components<T>& c, const T* z, double* terms) {
  const Chunks chunks(Shape{a.components, a.features, 0, {}});
  for (int64_t k = 0; k < a.components; ++k) terms[k] = double(c.peak[k]);
  for (int64_t index = 0; index < chunks.count; ++index) {
    const Chunk part = chunks[index];
    T buffer[kBuffer];
    double sums[kBuffer];
    for (int r = 0; r < part.rows; ++r) {
      const int64_t at = (part.row + r) * a.features + part.column;
      squares(z + part.column, c.mean + at, c.inverse + at, part.features, buffer + r * part.features);
    }
    sum_rows(buffer, part.rows, part.features, sums);
    for (int r = 0; r < part.rows; ++r) terms[part.row + r] = with_squares(sums[r], terms[part.row + r]);
  }
}

// Each component's share of a row's density, shares [K], not yet divided by the sum of all. Returns that sum; `top` is
// the largest term.
template <class T>
double row_shares(const Mixture& a, const double* terms, T* shares, double& top) {
  top = -Real<double>::kInfinity;
  for (int64_t k = 0; k < a.components; ++k) top = at_least(top, terms[k]);
  if (top == -Real<double>::kInfinity) top = 0;
  for (int64_t k = 0; k < a.components; ++k) shares[k] = share_of(T(terms[k] - top));
  return sum(shares, int(a.components));
}

// The rows [first, last) of a group.
template <class T>
void forward_features(const Mixture& a, const FeatureRoom<T>& room, int64_t group, int64_t first, int64_t last) {
  const int64_t L = a.features;
  const Components<T>& c = room.components;
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = i * a.groups + group;
    const T* const z = static_cast<const T*>(a.z) + row * L;                     // [L]
    T* const values = static_cast<T*>(a.values) + row * a.width();               // [W]
    T* const tops = a.top ? static_cast<T*>(a.top) + row * a.width() : nullptr;  // [W]
    T* const sums = a.sum ? static_cast<T*>(a.sum) + row * a.width() : nullptr;  // [W]
    if (a.elements) {
      map_log_density(z, c.mean, c.inverse, c.peak, L, values);
      continue;
    }
    row_terms(a, c, z, room.terms);
    double top = room.terms[0];
    const double total = a.components == 1 ? 1.0 : row_shares(a, room.terms, room.shares, top);
    values[0] = a.components == 1 ? T(top) : T(top + pyvae::log(total));
    if (tops) tops[0] = T(top), sums[0] = T(total);
  }
}

// One component's part of a row's gradients: grad, first, second [n].
template <class T>
void add_share(const T* __restrict z, const T* __restrict mean, const T* __restrict inverse, T r, int64_t n,
               T* __restrict grad, T* __restrict first, T* __restrict second) {
  for (int64_t i = 0; i < n; ++i) {
    const T y = standardized(z[i], mean[i], inverse[i]);
    Moments<T> sums = {T(0), first[i], second[i]};
    sums.add(r, y);
    grad[i] = add_by_z(r, y, inverse[i], grad[i]);
    first[i] = sums.first, second[i] = sums.second;
  }
}

template <class T>
void backward_row(const Mixture& a, const FeatureRoom<T>& room, int64_t row) {
  const int64_t K = a.components, L = a.features;
  const Components<T>& c = room.components;
  const T* const z = static_cast<const T*>(a.z) + row * L;                        // [L]
  const T* const upstream = static_cast<const T*>(a.upstream) + row * a.width();  // [W]
  T* const grad = static_cast<T*>(a.grad_z) + row * L;                            // [L]
  if (a.elements) {
    return add_density_gradient(z, c.mean, c.inverse, upstream, int(L), grad, room.first, room.second, room.weight);
  }
  T factor = upstream[0];
  room.shares[0] = T(1);
  if (K > 1) {
    double top;
    row_terms(a, c, z, room.terms);
    factor = T(double(factor) / row_shares(a, room.terms, room.shares, top));
  }
  for (int64_t l = 0; l < L; ++l) grad[l] = T(0);
  for (int64_t k = 0; k < K; ++k) {
    const T r = factor * room.shares[k];
    add_share(z, c.mean + k * L, c.inverse + k * L, r, L, grad, room.first + k * L, room.second + k * L);
    room.weight[k] += r;
  }
}

template <class T>
void add_to(const T* values, int64_t n, double* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += double(values[i]);
}

// The rows [start, last) of a group: writes their gradients by z, and adds their part of the components' gradients to
// sums [sums_each].
template <class T>
void backward_features(const Mixture& a, const FeatureRoom<T>& room, int64_t group, int64_t start, int64_t last,
                       double* sums) {
  const int64_t cells = a.cells(), weights = a.components * a.width();
  for (int64_t strip = start; strip < last; strip += kStripRows) {
    for (int64_t i = 0; i < cells; ++i) room.first[i] = room.second[i] = T(0);
    for (int64_t i = 0; i < weights; ++i) room.weight[i] = T(0);
    for (int64_t i = strip; i < at_most(strip + kStripRows, last); ++i) backward_row(a, room, i * a.groups + group);
    add_to(room.first, cells, sums), add_to(room.second, cells, sums + cells);
    add_to(room.weight, weights, sums + 2 * cells);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
