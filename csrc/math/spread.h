// The part of the divergence that depends on the two scales, from log sigma^2 - log p^2 or from sigma/p.
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// A prior's scale, and p^2, which is computed from it alone.
template <class T>
struct PriorScale {
  T scale, variance;

  PYVAE_HD T over_variance(T x) const { return x / variance; }
};

// The scales' part of the divergence from a prior.
template <class T>
struct Spread {
  T value;     // 1/2 (e^d - 1 - d)
  T slope;     // 1/2 (e^d - 1), its derivative by d
  T by_scale;  // slope d log sigma^2 / ds, its derivative by s
};

// f + small, unless f is infinite.
template <class T>
PYVAE_HD T corrected(T f, T small) {
  return absolute(f) < Real<T>::kInfinity ? f + small : f;
}

// For d = factor (s - t). e^d would magnify the rounding error of s - t by d. Two-sum gives that error exactly; it is
// added back in first order.
template <class T>
PYVAE_HD Spread<T> spread_of_logarithms(T s, T t, T factor) {
  const T difference = s - t, back = difference - s;
  const bool finite = absolute(difference) < Real<T>::kInfinity;
  const T lost = finite ? factor * ((s - (difference - back)) - (t + back)) : T(0);
  const T d = factor * difference, excess = exp_excess(d), slope = expm1(d);
  const T half = T(0.5) * corrected(slope, lost * (slope + T(1)));
  return {T(0.5) * corrected(excess, lost * (excess + d)), half, factor * half};
}

// 1/2 (sigma^2 - 1) - log sigma for d = sigma - 1 near 0: log(1 + d) = d - d^2/2 + d^3 P(d), so it is d^2 (1 - d P(d)).
template <class T>
PYVAE_HD T near_one(T d) {
  return (d * d) * (T(1) - d * log_polynomial(d));
}
template <class T>
PYVAE_HD bool is_near_one(T d) {
  return (d > T(-0.25)) & (d < T(0.375));
}

// For e^d = (sigma/p)^2: `excess` is sigma/p - 1, exact near 0, and log_ratio is log(sigma/p) = d/2.
template <class T>
PYVAE_HD Spread<T> spread_of_ratio(T excess, T log_ratio) {
  const T slope = T(0.5) * excess * (excess + T(2));
  const T near = near_one(excess), far = corrected(slope, -log_ratio);
  return {is_near_one(excess) ? near : far, slope, T(0)};
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
