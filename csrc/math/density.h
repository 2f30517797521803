// The density of a Gaussian N(m, sigma^2), and of a mixture of Gaussians with terms a_k:
//
//   log N(z)  = -1/2 y^2 - log sigma - 1/2 log(2 pi),                   y = (z - m) / sigma
//   log p(z)  = log sum_k e^(a_k),    a_k = log pi_k + log N_k(z)       of each dimension, or of their sum
//
// With r_k = e^(a_k - top) / sum_j e^(a_j - top), where top is the largest a_k, the derivatives of log p are those of
// the a_k times r_k:
//
//   by z            -r_k y / sigma, summed over the components
//   by m_k           r_k y / sigma
//   by s_k           r_k (y^2 - 1) d log sigma / ds
//   by logit k       r_k - pi_k
//
// The exponent uses top, not log p: if the terms are far below 0, log p has lost the logarithm of their number.
// The difference z - m is computed first: it is exact if z is near the mean, whatever sigma is.
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

// What a density computes from its scale: log sigma, 1 / sigma and d log sigma / ds.
template <class T>
struct Width {
  T log_sigma, inverse, slope;
};

// e^x, x <= 0: a component's share relative to the largest one. Below e^-70 (e^-600 in double) it is 0: sums do not
// change by it, and products of smaller shares are denormal numbers, which slow processors down several times.
template <class T>
PYVAE_HD T share_of(T x) {
  constexpr T least = sizeof(T) == 4 ? T(-70) : T(-600);
  const T share = exp_negative(at_least(x, least));
  return x < least ? T(0) : share;
}

template <class T>
PYVAE_HD T standardized(T z, T mean, T inverse) {
  return (z - mean) * inverse;
}

// log N without the term -1/2 y^2.
template <class T>
PYVAE_HD T log_peak(T log_sigma) {
  return T(-kHalfLogTwoPi) - log_sigma;
}

// Adds -1/2 y^2 to the rest, or -1/2 times a sum of squares.
template <class T>
PYVAE_HD T with_square(T y, T rest) {
  return fma(T(-0.5) * y, y, rest);
}
template <class T>
PYVAE_HD T with_squares(T sum, T rest) {
  return fma(T(-0.5), sum, rest);
}

// The samples' sums for a component's derivatives: r, r y and r y^2. Factors that all samples share are applied last.
template <class T>
struct Moments {
  T weight, first, second;

  PYVAE_HD void add(T r, T y) {
    const T r_y = r * y;
    first += r_y;
    second = fma(r_y, y, second);
  }
  // sum of r y / sigma
  PYVAE_HD T by_mean(T inverse) const { return first * inverse; }
  // sum of r (y^2 - 1) d log sigma / ds
  PYVAE_HD T by_scale(T slope) const { return (second - weight) * slope; }
};

// Adds -r y / sigma to the other components' part.
template <class T>
PYVAE_HD T add_by_z(T r, T y, T inverse, T rest) {
  return fma(-(r * y), inverse, rest);
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
