// The parts of the gamma function that counts need, in float and double: log(1 + w) and w - log(1 + w), Stirling's
// remainders of lgamma and digamma as differences that do not cancel, and the saturated term of a count.
//
// For z >= 1, with y = 1/z (Abramowitz & Stegun 6.1.41, 6.3.18 and 6.4.12 are the series at y = 0; psi = lgamma'):
//   R(z)   = lgamma(z) - ((z - 1/2) log z - z + 1/2 log(2 pi)) = sum_k b_k / ((k + 1) (k + 2)) y^(k + 1)
//   phi(z) = log z - psi(z)                                    = 1/2 y + sum_k b_k / (k + 2) y^(k + 2)
//   dphi/dy = z^2 psi'(z) - z                                  = 1/2 + sum_k b_k y^(k + 1)
// The b_k are a minimax fit of the last line (to 4e-7 in float, 2e-13 in double), so that the slopes of the other two
// are as accurate as their values.
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- logarithms -----------------------------------------------------------------------------------------------------

template <class T>
struct Log1p {
  T value;   // log(1 + w)
  T defect;  // w - log(1 + w) >= 0, exact near 0, where it is w^2/2
};

// For -1 < w < inf. `sum` is 1 + w, a normal number. Near w = -1 the caller may know it better than this sum would be.
template <class T>
PYVAE_HD Log1p<T> log1p(T w, T sum) {
  using R = Real<T>;
  const Binary<T> binary = split_binary(sum);
  const bool near = binary.k == T(0);  // then f is w itself: 1 + w need not be rounded
  const T f = near ? w : binary.f;
  const T tail = log_tail(f);
  const T value = fma(binary.k, R::kLn2Hi, f + fma(binary.k, R::kLn2Lo, tail));
  return {value, near ? -tail : w - value};
}

template <class T>
PYVAE_HD Log1p<T> log1p(T w) {
  return log1p(w, T(1) + w);
}

// (w - log(1 + w)) / w for |w| <= 1/4, also for a w whose square is too small for T.
template <class T>
PYVAE_HD T defect_ratio(T w) {
  return w * fma(-w, log_polynomial(w), T(0.5));
}

template <class T>
struct LogRatio {
  T log_x;
  T delta;  // a - log x
};

// For x >= 0; 0 is replaced by the smallest normal number. log x is subtracted part by part: if a is near it, the first
// two differences are exact, so delta has the error of the last and smallest part, not that of log x.
template <class T>
PYVAE_HD LogRatio<T> log_ratio(T a, T x) {
  using R = Real<T>;
  const Binary<T> binary = split_binary(at_least(x, R::kMinNormal));
  const T tail = fma(binary.k, R::kLn2Lo, log_tail(binary.f));
  return {fma(binary.k, R::kLn2Hi, binary.f + tail), (fma(-binary.k, R::kLn2Hi, a) - binary.f) - tail};
}

// The same for the mean itself, e^a >= 0: if it is near x, from their exact difference.
template <class Math, class T>
PYVAE_HD LogRatio<T> log_ratio_of_mean(T mean, T x) {
  const LogRatio<T> far = log_ratio(log(mean), x);
  const T difference = mean - x;
  const bool near = absolute(difference) <= T(0.25) * x;
  return {far.log_x, near ? log1p(near ? Math::divide(difference, x) : T(0)).value : far.delta};
}

// (-log(1 - q) - q) / q^2 for 0 <= q <= 1/2, to 1e-7 and 3e-15
PYVAE_HD float log1m_excess_polynomial(float q) {
  return polynomial(q, 0.5000000199f, 0.3333270016f, 0.2503279778f, 0.1935322164f, 0.2295933972f, -0.1933619496f,
                    1.141434666f, -1.554258795f, 1.319002360f);
}
PYVAE_HD double log1m_excess_polynomial(double q) {
  return polynomial(q, 0.49999999999999861698, 0.33333333333510677614, 0.24999999962296944563, 0.20000003169003431367,
                    0.16666526571300193142, 0.14289471032506020852, 0.12433552688815306950, 0.11928766402269490234,
                    0.027509248736775735201, 0.56451459668327600573, -2.2269759344456822450, 8.5331262818941247235,
                    -23.073827749666260070, 46.813480094978885230, -67.722739538019866664, 67.077559261326710931,
                    -40.677169432190286632, 11.712033925995716167);
}

// ---- Stirling's remainders ------------------------------------------------------------------------------------------

// A polynomial's value at y1, and its difference quotient (p(y1) - p(y2)) / (y1 - y2), which needs no y1 - y2.
template <class T>
struct Secant {
  T value, slope;
};

// c + y p(y), by Horner's rule for both
template <class T>
PYVAE_HD Secant<T> extend(T y1, T y2, T c, Secant<T> p) {
  return {fma(p.value, y1, c), fma(p.slope, y2, p.value)};
}

template <class T>
struct StirlingSecants {
  Secant<T> remainder, phi;
};

// R/y and (phi/y - 1/2)/y from the coefficients b_k and on, without the factor y^k.
template <int k = 0, class T>
PYVAE_HD StirlingSecants<T> integrate_trigamma(T, T, T b) {
  return {{b / T((k + 1) * (k + 2)), T(0)}, {b / T(k + 2), T(0)}};
}
template <int k = 0, class T, class... Rest>
PYVAE_HD StirlingSecants<T> integrate_trigamma(T y1, T y2, T b, Rest... rest) {
  const StirlingSecants<T> higher = integrate_trigamma<k + 1>(y1, y2, T(rest)...);
  return {extend(y1, y2, b / T((k + 1) * (k + 2)), higher.remainder), extend(y1, y2, b / T(k + 2), higher.phi)};
}

// b_k: (z^2 psi'(z) - z - 1/2) / y for 0 < y <= 1
PYVAE_HD StirlingSecants<float> stirling_polynomials(float y1, float y2) {
  return integrate_trigamma(y1, y2, 0.1666662674f, 3.211560777e-5f, -0.03372379897f, 0.001189640541f, 0.02644375577f,
                            -0.0214625793f, 0.005789065073f);
}
PYVAE_HD StirlingSecants<double> stirling_polynomials(double y1, double y2) {
  return integrate_trigamma(
      y1, y2, 0.16666666666678392834, -8.1449100525523155029e-11, -0.033333323967200176138, -4.2204816108031514065e-7,
      0.023819335191556139089, -0.00013327570386943389651, -0.032225587267338614031, -0.0053645066800490057327,
      0.084881855219723500588, 0.064740762516166300808, -0.82187938922337199823, 2.2014476559016626765,
      -3.5366364955981593313, 3.9181695315917694587, -3.0941765131419751583, 1.7248395420664903714,
      -0.64818661030652709305, 0.14776769555476512705, -0.015462853842707336121);
}

template <class T>
struct StirlingSlopes {
  T remainder, phi;  // (R(1/y1) - R(1/y2)) / (y1 - y2), and the same for phi: about 1/12 and 1/2
};

// For 0 < y1, y2 <= 1
template <class T>
PYVAE_HD StirlingSlopes<T> stirling_slopes(T y1, T y2) {
  const StirlingSecants<T> p = stirling_polynomials(y1, y2);
  return {extend(y1, y2, T(0), p.remainder).slope, extend(y1, y2, T(0), extend(y1, y2, T(0.5), p.phi)).slope};
}

// ---- the saturated term ---------------------------------------------------------------------------------------------

// S(x) = -log Poisson(x | mean x) = lgamma(1 + x) + x - x log x >= 0 for x >= 0, S(0) = 0: the rest of a count's
// negative log-likelihood if the mean fits it exactly. By lgamma at 1 + x, where Stirling's remainder is small:
//   S(x) = 1/2 log(1 + x) + x log(1 + 1/x) - (R(1) - R(1 + x)),  R(1) = 1 - 1/2 log(2 pi)
// The first two terms are positive, the third is at most 0.081, and all vanish with x. With l = log(1 + min(x, 1/x)):
//   x <= 1: log(1 + x) = l, log(1 + 1/x) = l - log x;  x > 1: log(1 + x) = log x + l, log(1 + 1/x) = l
template <class Math, class T>
PYVAE_HD T saturated(T x, T log_x) {
  const bool small = x < T(1);
  const T l = log1p_unit(Math::divide(small ? x : T(1), small ? T(1) : x));
  const T y = Math::divide(T(1), T(1) + x);
  const T logarithms = fma(x + T(0.5), l, (small ? -x : T(0.5)) * log_x);
  return fma(-x * y, stirling_slopes(T(1), y).remainder, logarithms);  // 1 - y = x y
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
