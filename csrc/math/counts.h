// The likelihoods of counts: the full negative log-probability of one element in nats, and its derivatives by `recon`
// and by the likelihood's own parameters.
//
// recon = a, the log of the mean (for the multinomial: of the probability). x >= 0 is the count, an integer or not. A
// negative x or NaN gives NaN.
//
// In float32, a difference of lgammas has no correct digit if theta is large (for theta = 10^8 they are near 10^9); nor
// has a difference of digammas. So each value here is a sum of positive terms, after Loader (2000), "Fast and accurate
// computation of binomial probabilities": the deviance, which is 0 if the mean is x, and the saturated term, which is
// the rest. Each value thus has a small relative error. So has each derivative; if it is a difference that crosses 0,
// its error is small relative to the larger term. In float32 the errors are within 4e-6 on the ranges of
// tests/test_counts_math.py.
#pragma once

#include "math/gamma.h"
#include "math/terms.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// 0 for a count, else NaN. It is added to results, not to x: g++ would propagate a NaN in x into each comparison.
template <class T>
PYVAE_HD T refusal(T x) {
  return x >= T(0) ? T(0) : T(__builtin_nan(""));
}

// A weight m changes to m e^s: the difference, its first order, and the rest. Exact near s = 0; 0 s is 0.
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

// Multinomial, a = log softmax; the coefficient is omitted. x a is 0 if x is 0, even for a = -inf.
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
