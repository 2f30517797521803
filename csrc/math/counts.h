// The likelihoods of counts: one element's full negative log-probability in nats, and its derivatives by `recon` and by
// the likelihood's own parameters.
//
// recon = a, the log of the mean (of the multinomial: of the probability). x >= 0 is the count, an integer or not; a
// negative x or NaN gives NaN.
//
// A difference of lgammas has no digit left in float32 where theta is large (they are near 10^9 for theta = 10^8), nor
// has one of digammas. Here each value is a sum of positive terms, after Loader (2000), "Fast and accurate computation
// of binomial probabilities": the deviance, 0 where the mean is x, and the saturated term, what is left there. So a
// value is known relative to itself, and so is a derivative, or where it is a difference that crosses 0, relative to
// the larger side; in float32 within 4e-6 on the ranges of tests/test_counts_math.py.
#pragma once

#include "math/gamma.h"
#include "math/terms.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// 0 for a count, NaN for what is none. It is added to results, not to x: g++ would follow a NaN into each comparison.
template <class T>
PYVAE_HD T refusal(T x) {
  return x >= T(0) ? T(0) : T(__builtin_nan(""));
}

// A weight m that moves to m e^s: by how much, and how that parts from its first order. Exact near s = 0; 0 s is 0.
template <class T>
struct Move {
  T difference;  // m (e^s - 1)
  T linear;      // m s
  T excess;      // m (e^s - 1 - s) >= 0
};

template <class T>
PYVAE_HD Move<T> move_weight(T m, T s, T moved) {
  const bool near = absolute(s) <= T(0.34);  // the polynomial's interval
  const T linear = m > T(0) ? m * s : T(0);
  const T excess = m * (s * s * exp_excess_polynomial(s));
  const T difference = near ? linear + excess : moved - m;
  return {difference, linear, near ? excess : difference - linear};
}

// Poisson(e^a).
//   value      e^a - x a + lgamma(x + 1) = x (e^d - 1 - d) + S(x),  d = a - log x
//   derivative e^a - x                   = x (e^d - 1)
struct Poisson : CountTraits {
  static constexpr const char* kName = "poisson";
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T a, T x, const T (&)[1]) {
    const LogRatio<T> ratio = log_ratio(a, x);
    const Move<T> mean = move_weight(x, ratio.delta, Math::exp(a));
    const T refused = refusal(x);
    return {mean.excess + saturated<Math>(x, ratio.log_x) + refused, mean.difference + refused, {}};
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate_zero(T a, const T (&)[1]) {
    const T mean = Math::exp(a);
    return {mean, mean, {}};
  }
};

// Multinomial, a = log softmax; the coefficient is left out. x a is 0 where x is, also for a = -inf.
//   value      -x a
//   derivative -x
struct Multinomial : CountTraits {
  static constexpr const char* kName = "multinomial";
  static constexpr Softmax kSoftmax = Softmax::kAlways;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T a, T x, const T (&)[1]) {
    const T refused = refusal(x);
    return {refused - x * (x == T(0) ? at_least(a, T(-1)) : a), refused - x, {}};
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate_zero(T a, const T (&parameters)[1]) {
    return evaluate<Math>(a, T(0), parameters);
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
