// Numbers with twice the digits: a sum of two, where the second is the rounding error of the first (Dekker 1971).
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
struct Pair {
  T high, low;
};

// high + low; only high if that is infinite
template <class T>
PYVAE_HD T rounded(Pair<T> x) {
  return absolute(x.high) < Real<T>::kInfinity ? x.high + x.low : x.high;
}

template <class T>
PYVAE_HD Pair<T> pair_of(Pair<double> x) {
  const T high = T(x.high);
  return {high, T((x.high - double(high)) + x.low)};
}

// a + b
template <class T>
PYVAE_HD Pair<T> sum(T a, T b) {
  const T high = a + b, of_b = high - a;
  return {high, (a - (high - of_b)) + (b - of_b)};
}

// a + b, |a| >= |b|
template <class T>
PYVAE_HD Pair<T> fast_sum(T a, T b) {
  const T high = a + b;
  return {high, (a - high) + b};
}
template <class T>
PYVAE_HD Pair<T> fast_sum(T a, Pair<T> b) {
  const Pair<T> high = fast_sum(a, b.high);
  return {high.high, high.low + b.low};
}

// sum += x. The rounding error is kept until `rounded`; an infinite or NaN sum stays as it is.
template <class T>
PYVAE_HD void add(Pair<T>& to, T x) {
  const Pair<T> next = sum(to.high, x);
  to = {next.high, to.low + next.low};
}

template <class T>
PYVAE_HD Pair<T> operator*(Pair<T> a, Pair<T> b) {
  const T high = a.high * b.high;
  return {high, fma(a.high, b.high, -high) + fma(a.high, b.low, a.low * b.high)};
}

// 1 / a, by one Newton step from the quotient
template <class T>
PYVAE_HD Pair<T> reciprocal(Pair<T> a) {
  const T high = T(1) / a.high;
  return {high, high * (fma(-a.high, high, T(1)) - a.low * high)};
}

// e^x for x <= 0
template <class T>
PYVAE_HD Pair<T> exp_negative_pair(T x) {
  using R = Real<T>;
  constexpr T rounder = R::kRounder + R::kBias + R::kLift;
  x = at_least(x, R::kExpMin);
  const T rounded = fma(x, R::kLog2e, rounder), n = rounded - rounder;
  const T r = fma(n, -R::kLn2Lo, fma(n, -R::kLn2Hi, x)), power = power_of_two(rounded);
  const Pair<T> e = fast_sum(T(1), fma(r * r, exp_excess_polynomial(r), r));
  return {e.high * power * R::kDrop, e.low * power * R::kDrop};
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
