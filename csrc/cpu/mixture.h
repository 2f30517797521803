// Log densities under mixtures of Gaussians. A tile is kTileRows rows side by side, stored feature by feature. So each
// computation for a component is a SIMD vector over rows, for any number of components or features, and no sum crosses
// lanes. The terms of a log-sum-exp are kept for kTerms components at a time, so no buffer grows with rows times
// components.
#pragma once

#include "cpu/chunk.h"
#include "math/gaussian.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- memory of a thread ---------------------------------------------------------------------------------------------

// Allocates parts of a scratch buffer; without a buffer it only counts the bytes.
class Room {
 public:
  explicit Room(void* scratch) : base_(static_cast<char*>(scratch)) {}

  template <class T>
  T* take(int64_t count) {
    T* const out = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return out;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// ---- the components of a group --------------------------------------------------------------------------------------

template <class T>
struct Components {
  T* mean;     // [K, L]
  T* inverse;  // [K, L], 1 / sigma
  T* peak;     // [K], or [K, L] if `elements`: the value of a term at z = mean
  T* peaks;    // [K, L], per feature
  int64_t group = -1;

  Components(const Mixture& a, Room& room)
      : mean(room.take<T>(a.cells())),
        inverse(room.take<T>(a.cells())),
        peak(a.elements ? nullptr : room.take<T>(a.components)),
        peaks(room.take<T>(a.cells())) {
    if (a.elements) peak = peaks;
  }
};

// 1 / sigma, log N at z = mean, and d log sigma / ds; null: skipped.
template <class Scale, bool kSlope, class T>
PYVAE_NOINLINE void map_width(Clamp<T> clamp, const T* __restrict scale, int64_t n, T* __restrict inverse,
                              T* __restrict peak, T* __restrict slope) {
  for (int64_t i = 0; i < n; ++i) {
    const Width<T> width = Scale::width(clamp(scale[i]));
    inverse[i] = width.inverse;
    if (kSlope) {
      slope[i] = width.slope;
    } else {
      peak[i] = log_peak(width.log_sigma);
    }
  }
}

// Loads the components of one group, unless they are loaded. A component of weight 0 is replaced by one that
// contributes nothing, whatever its own numbers are. Returns false for a standard deviation below 0.
template <class Scale, class T>
bool load(const Mixture& a, int64_t group, Components<T>& out) {
  if (out.group == group) return true;
  out.group = group;
  const int64_t K = a.components, L = a.features;
  const T* const mean = static_cast<const T*>(a.mean) + group * K * L;    // [K, L]
  const T* const scale = static_cast<const T*>(a.scale) + group * K * L;  // [K, L]
  map_width<Scale, false, T>({T(a.low), T(a.high)}, scale, K * L, out.inverse, out.peaks, nullptr);
  int negative = 0;
  for (int64_t i = 0; i < K * L; ++i) {
    out.mean[i] = mean[i];
    if (Scale::kNonNegative) negative |= scale[i] < T(0);
  }
  const double equal = -pyvae::log(double(K));
  for (int64_t k = 0; k < K; ++k) {
    const double weight = a.log_weight ? a.log_weight[group * K + k] : equal;
    const bool absent = weight == -Real<double>::kInfinity;
    T* const peaks = out.peaks + k * L;
    if (a.elements) {
      for (int64_t l = 0; l < L; ++l) peaks[l] = absent ? -Real<T>::kInfinity : T(weight) + peaks[l];
    } else {
      out.peak[k] = absent ? -Real<T>::kInfinity : T(weight + sum(peaks, int(L)));
    }
    for (int64_t l = 0; absent && l < L; ++l) out.mean[k * L + l] = out.inverse[k * L + l] = T(0);
  }
  return !negative;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// The rows [first, first + n) of a group, n <= kTileRows. Missing rows repeat the first.
struct Tile {
  int64_t first, groups, group;
  int n;

  int64_t row(int i) const { return (first + (i < n ? i : 0)) * groups + group; }
};

// from [rows, L] to out [L, kTileRows]
template <class T>
PYVAE_NOINLINE void load_tile(const Tile& tile, const void* from, int64_t L, T* __restrict out) {
  for (int i = 0; i < kTileRows; ++i) {
    const T* const row = static_cast<const T*>(from) + tile.row(i) * L;
    for (int64_t l = 0; l < L; ++l) out[l * kTileRows + i] = row[l];
  }
}

// from [L, kTileRows] to [rows, L]
template <class T>
PYVAE_NOINLINE void store_tile(const Tile& tile, const T* __restrict from, int64_t L, void* to) {
  for (int i = 0; i < tile.n; ++i) {
    T* const row = static_cast<T*>(to) + tile.row(i) * L;
    for (int64_t l = 0; l < L; ++l) row[l] = from[l * kTileRows + i];
  }
}

// Adds the squares of kFeatures features; the sums stay in registers.
template <int kFeatures, class T>
inline void add_squares(const T* __restrict z, const T* mean, const T* inverse, T* __restrict sums) {
  T m[kFeatures], v[kFeatures];
  for (int j = 0; j < kFeatures; ++j) m[j] = mean[j], v[j] = inverse[j];
  for (int i = 0; i < kTileRows; ++i) {
    T total = sums[i];
    PYVAE_UNROLL
    for (int j = 0; j < kFeatures; ++j) {
      const T y = standardized(z[j * kTileRows + i], m[j], v[j]);
      total = fma(y, y, total);
    }
    sums[i] = total;
  }
}

// A component's term for each row, log pi + log N(z): z [L, kTileRows], mean and inverse [L], out [kTileRows].
template <class T>
PYVAE_NOINLINE void joint_terms(const T* __restrict z, const T* mean, const T* inverse, T peak, int64_t L,
                                T* __restrict out) {
  for (int i = 0; i < kTileRows; ++i) out[i] = peak;
  for (int64_t first = 0; first < L; first += kSquares) {
    alignas(64) T sums[kTileRows] = {};
    const int64_t end = first + kSquares < L ? first + kSquares : L;
    int64_t l = first;
    for (; l + 8 <= end; l += 8) add_squares<8>(z + l * kTileRows, mean + l, inverse + l, sums);
    for (; l + 2 <= end; l += 2) add_squares<2>(z + l * kTileRows, mean + l, inverse + l, sums);
    if (l < end) add_squares<1>(z + l * kTileRows, mean + l, inverse + l, sums);
    for (int i = 0; i < kTileRows; ++i) out[i] = with_squares(sums[i], out[i]);
  }
}

// The same for one feature: z [kTileRows].
template <class T>
inline void element_terms(const T* __restrict z, T mean, T inverse, T peak, T* __restrict out) {
  for (int i = 0; i < kTileRows; ++i) out[i] = with_square(standardized(z[i], mean, inverse), peak);
}

// ---- the logarithm of a sum of exponentials -------------------------------------------------------------------------

// A running log-sum-exp of terms that are added one group after the other.
template <class T>
class LogSumExp {
 public:
  LogSumExp() {
    for (int i = 0; i < kTileRows; ++i) top_[i] = -Real<T>::kInfinity, sum_[i] = T(0);
  }

  // The sum is kept relative to the largest term so far. A NaN shows in the sum.
  PYVAE_NOINLINE void add(const T (*__restrict terms)[kTileRows], int n) {
    alignas(64) T top[kTileRows], base[kTileRows];
    for (int i = 0; i < kTileRows; ++i) top[i] = top_[i];
    for (int k = 0; k < n; ++k) {
      for (int i = 0; i < kTileRows; ++i) top[i] = at_least(top[i], terms[k][i]);
    }
    for (int i = 0; i < kTileRows; ++i) {
      base[i] = base_of(top[i]);
      sum_[i] *= share_of(top_[i] - base[i]);
      top_[i] = top[i];
    }
    for (int k = 0; k < n; ++k) {
      for (int i = 0; i < kTileRows; ++i) sum_[i] += share_of(terms[k][i] - base[i]);
    }
  }

  // The logarithm, the base that terms are relative to, and their sum relative to it: [kTileRows] each.
  void result(T* __restrict value, T* __restrict base, T* __restrict sum) const {
    for (int i = 0; i < kTileRows; ++i) {
      base[i] = base_of(top_[i]), sum[i] = sum_[i];
      value[i] = base[i] + pyvae::log(sum_[i]);
    }
  }

 private:
  // If all terms are -inf, the result is -inf too.
  static T base_of(T top) { return top == -Real<T>::kInfinity ? T(0) : top; }

  alignas(64) T top_[kTileRows], sum_[kTileRows];
};

// ---- forward --------------------------------------------------------------------------------------------------------

template <class T>
struct ForwardRoom {
  Components<T> components;
  T* z;       // [L, kTileRows]
  T* values;  // [W, kTileRows], W = 1, or L if `elements`
  T* top;     // likewise
  T* sum;     // likewise

  ForwardRoom(const Mixture& a, Room& room)
      : components(a, room),
        z(room.take<T>(a.features * kTileRows)),
        values(room.take<T>(a.width() * kTileRows)),
        top(room.take<T>(a.width() * kTileRows)),
        sum(room.take<T>(a.width() * kTileRows)) {}
};

// Value w of each row, from the terms that `term` writes: [kTileRows] for each component.
template <class T, class Term>
void log_sum(const Mixture& a, const ForwardRoom<T>& room, int64_t w, Term term) {
  alignas(64) T terms[kTerms][kTileRows];
  LogSumExp<T> total;
  for (int64_t first = 0; first < a.components; first += kTerms) {
    const int n = a.components - first < kTerms ? int(a.components - first) : kTerms;
    for (int k = 0; k < n; ++k) term(first + k, terms[k]);
    total.add(terms, n);
  }
  total.result(room.values + w * kTileRows, room.top + w * kTileRows, room.sum + w * kTileRows);
}

template <class T>
void tile_values(const Mixture& a, const ForwardRoom<T>& room) {
  const int64_t L = a.features;
  const Components<T>& c = room.components;
  if (!a.elements) {
    return log_sum(a, room, 0, [&](int64_t k, T* out) {
      joint_terms(room.z, c.mean + k * L, c.inverse + k * L, c.peak[k], L, out);
    });
  }
  for (int64_t l = 0; l < L; ++l) {
    log_sum(a, room, l, [&](int64_t k, T* out) {
      element_terms(room.z + l * kTileRows, c.mean[k * L + l], c.inverse[k * L + l], c.peak[k * L + l], out);
    });
  }
}

// The rows [first, last) of a group.
template <class T>
void forward_rows(const Mixture& a, const ForwardRoom<T>& room, int64_t group, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row += kTileRows) {
    const Tile tile = {row, a.groups, group, last - row < kTileRows ? int(last - row) : kTileRows};
    load_tile(tile, a.z, a.features, room.z);
    tile_values(a, room);
    store_tile(tile, room.values, a.width(), a.values);
    if (a.top) store_tile(tile, room.top, a.width(), a.top), store_tile(tile, room.sum, a.width(), a.sum);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
