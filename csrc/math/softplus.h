// softplus(s) = log(1 + e^s), the standard deviation of the scale form `rho`, and the terms that divergences need.
//
// With u = e^-|s| nothing overflows, and both tails are exact:
//   softplus(s) = max(s, 0) + log(1 + u),  its derivative sigmoid(s) = 1 / (1 + u) if s > 0, else u / (1 + u)
#pragma once

#include "math/gamma.h"
#include "math/pair.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
struct SoftplusParts {
  T value;           // softplus(s)
  T less_one;        // softplus(s) - 1, if that is not near 0
  T slope;           // sigmoid(s)
  T relative_slope;  // sigmoid(s) / softplus(s), the derivative of log softplus(s)
  T rest;            // log(1 + u)
  // value = part e^exponent. For s <= 0 the part is log(1 + u) / u, so the logarithm needs no e^s: it is nearly s, and
  // finite even if the value is 0.
  T part, exponent;
};

template <class T>
PYVAE_HD SoftplusParts<T> softplus(T s) {
  const bool positive = s > T(0);
  const T u = exp_negative(positive ? -s : s), excess = log1p_excess_polynomial(u);
  const T factor = fma(excess, u, T(1)), rest = fma(u * u, excess, u);
  const T value = positive ? s + rest : rest, part = positive ? value : factor;
  return {value,
          positive ? (s - T(1)) + rest : rest - T(1),
          (positive ? T(1) : u) / (T(1) + u),
          T(1) / ((T(1) + u) * part),
          rest,
          part,
          positive ? T(0) : s};
}

// ---- from N(0, 1) ---------------------------------------------------------------------------------------------------

// (1/2 (sigma^2 - 1) - log sigma) / x^2 for sigma = softplus(log(e - 1) + x), |x| <= 1
PYVAE_HD float softplus_divergence_polynomial(float x) {
  return polynomial(x, 0.3995763996f, 0.06280244472f, -0.005972461809f, -0.002493806984f, 0.0004696740351f,
                    0.0001475680343f, -4.266360321e-5f, -7.880770994e-6f, 3.206419559e-6f);
}
PYVAE_HD double softplus_divergence_polynomial(double x) {
  return polynomial(
      x, 0.39957640089372804783, 0.062802457123531842093, -0.0059725148819773380382, -0.0024939817338199675308,
      0.00047003523068261395897, 0.00014822311598765541335, -0.000043551765066291586641, -8.7857506034978193583e-6,
      4.1373050777883661208e-6, 4.2115097768160809935e-7, -3.8301854244339640982e-7, -5.0281307288239855674e-9,
      3.3740096302720228168e-8, -2.4601901362053634126e-9, -2.7678126316270606590e-9, 4.6099343288201613109e-10,
      2.0089969878876027609e-10, -5.5166304994992465016e-11, -1.0291349375572015001e-11, 3.9417505491669512401e-12);
}

// (sigma - 1/sigma) sigmoid / x, its derivative, likewise
PYVAE_HD float softplus_slope_polynomial(float x) {
  return polynomial(x, 0.7991527951f, 0.1884073822f, -0.02388971919f, -0.01247004362f, 0.002817428516f, 0.001037992368f,
                    -0.0003403701131f, -7.950917250e-5f, 3.162012798e-5f, 4.669730902e-6f);
}
PYVAE_HD double softplus_slope_polynomial(double x) {
  return polynomial(x, 0.79915280178745609907, 0.18840737137059565475, -0.023890059527910401551,
                    -0.012469908669107381092, 0.0028202113841430065164, 0.0010375618120430084728,
                    -0.00034841412130428184501, -0.000079071756437306789170, 0.000041373056931623465292,
                    4.6326649755297074757e-6, -4.5962497652893911180e-6, -6.5376074259834923920e-8,
                    4.7243319112860414114e-7, -3.6887484041781537030e-8, -4.4400170402617885665e-8,
                    7.8233984668685502936e-9, 3.7262220806839910059e-9, -1.0417029942151310991e-9,
                    -2.6336945467364748582e-10, 8.1479467828289681569e-11, 1.2670744478050105459e-11);
}

// s - log(e - 1), where log(e - 1) is the point at which softplus is 1. It is kept in two parts: near it the first
// difference is exact.
PYVAE_HD float from_softplus_unit(float s) { return (s - 0x1.152888p-1f) - 0x1.89873p-31f; }
PYVAE_HD double from_softplus_unit(double s) { return (s - 0x1.15288806261ccp-1) - -0x1.4e98fab9069acp-56; }

// 1/2 (sigma^2 - 1) - log sigma, for sigma = softplus(s)
template <class T>
PYVAE_HD T softplus_divergence(T s) {
  const T x = from_softplus_unit(s);
  const SoftplusParts<T> sigma = softplus(s);
  const T near = (x * x) * softplus_divergence_polynomial(x);
  // The half first: it is finite if the square is not.
  const T far = ((T(0.5) * sigma.less_one) * (sigma.value + T(1)) - log(sigma.part)) - sigma.exponent;
  return absolute(x) <= T(1) ? near : far;
}

// Its derivative, (sigma - 1/sigma) sigmoid(s) = (sigma - 1) (sigmoid(s) + sigmoid(s)/sigma): -1 for s -> -inf
template <class T>
PYVAE_HD T softplus_divergence_derivative(T s) {
  const T x = from_softplus_unit(s);
  const SoftplusParts<T> sigma = softplus(s);
  const T near = x * softplus_slope_polynomial(x);
  return absolute(x) <= T(1) ? near : sigma.less_one * (sigma.slope + sigma.relative_slope);
}

// ---- from another softplus ------------------------------------------------------------------------------------------
//
// sigma - p is a difference, and the results depend on its square: near |s - t| = ln(2)/2 that magnifies the rounding
// errors of sigma and p four to seven times. So everything here has more digits than T.

// (log(1 + u) - u + u^2/2) / u^3 for 0 <= u <= 1, of which log(1 + u) is right to 1e-9 and 2e-18
PYVAE_HD float log1p_cubic_polynomial(float u) {
  return polynomial(u, 0.3333309362f, -0.2499332823f, 0.1992646623f, -0.1622890654f, 0.1268079522f, -0.08593578117f,
                    0.04431324442f, -0.01468930143f, 0.002277816497f);
}
PYVAE_HD double log1p_cubic_polynomial(double u) {
  return polynomial(u, 0.33333333333327155195, -0.24999999999314853931, 0.19999999969319081135, -0.16666665902863428617,
                    0.14285702137265432657, -0.12499866368211159806, 0.11110041063564693100, -0.099935363680872548474,
                    0.090606797765580238568, -0.082216893651561778339, 0.073615615834168372341,
                    -0.063464275814396266405, 0.050884476706121655453, -0.036416687437354271322,
                    0.022264999677923821731, -0.011101395076336826740, 0.0042780484817566570327,
                    -0.0011846232760948241387, 0.00020848120983681214104, -0.000017442509694931046703);
}

template <class T>
struct SoftplusPair {
  Pair<T> value, slope, relative_slope;  // as in SoftplusParts
  Pair<T> u, rest, part;
};

template <class T>
PYVAE_HD SoftplusPair<T> softplus_pair(T s) {
  const bool positive = s > T(0);
  const Pair<T> u = exp_negative_pair(positive ? -s : s), one_and_u = fast_sum(T(1), u);
  // log(1 + u) / u = 1 - u/2 + u^2 P(u)
  const T line = fma(T(-0.5), u.high, T(1)), cubic = u.high * u.high * log1p_cubic_polynomial(u.high);
  const Pair<T> factor = fast_sum(line, Pair<T>{cubic, fma(T(-0.5), u.high, T(1) - line)});
  const Pair<T> rest = u * factor, larger = fast_sum(s, rest);
  const Pair<T> value = positive ? larger : rest, part = positive ? larger : factor;
  const Pair<T> numerator = {positive ? T(1) : u.high, positive ? T(0) : u.low};
  return {value, numerator * reciprocal(one_and_u), reciprocal(one_and_u * part), u, rest, part};
}

// A prior's scale t, and what is computed from it alone, in double; p = softplus(t).
template <class T>
struct SoftplusPrior {
  T scale, precision;                                     // t and 1/p^2
  Pair<T> rest, slope, relative_slope, inverse, log_std;  // log(1 + e^-|t|), sigmoid(t), sigmoid(t) / p, 1/p, log p

  SoftplusPrior() = default;
  PYVAE_HD explicit SoftplusPrior(T t) {
    const SoftplusPair<double> p = softplus_pair(double(t));
    const double log_p = log_normal(p.part.high) + at_most(double(t), 0.0);
    scale = t, precision = T(1 / (p.value.high * p.value.high));
    rest = pair_of<T>(p.rest), slope = pair_of<T>(p.slope), relative_slope = pair_of<T>(p.relative_slope);
    inverse = pair_of<T>(reciprocal(p.value)), log_std = pair_of<T>(Pair<double>{log_p, 0});
  }

  PYVAE_HD T over_variance(T x) const { return x * precision; }
};

// For sigma = softplus(s) and p: the terms of the divergence and its derivatives.
template <class T>
struct SoftplusRatio {
  Pair<T> excess;          // sigma/p - 1
  T defect;                // sigma/p - 1 - log(sigma/p) >= 0
  Pair<T> relative_slope;  // sigmoid(s) / sigma
};

template <class T>
PYVAE_HD SoftplusRatio<T> softplus_ratio(T s, const SoftplusPrior<T>& p) {
  const SoftplusPair<T> of_s = softplus_pair(s);
  // sigma - p, computed directly
  const Pair<T> apart = sum(at_least(s, T(0)) - at_least(p.scale, T(0)), of_s.rest.high - p.rest.high);
  const T apart_low = apart.low + (of_s.rest.low - p.rest.low);
  // and, for |s - t| <= ln(2)/2, as log(1 + w), w = sigmoid(t) (e^(s - t) - 1)
  const T x = s - p.scale;
  const Pair<T> w = p.slope * fast_sum(x, x * x * exp_excess_polynomial(x));
  const Pair<T> near = fast_sum(w.high, Pair<T>{log_tail(w.high), w.low * (T(1) - w.high)});

  const bool is_near = absolute(x) <= T(0.34657359027997265471);
  const Pair<T> excess = p.inverse * Pair<T>{is_near ? near.high : apart.high, is_near ? near.low : apart_low};
  // log sigma is s - u/2 if sigma may be too small for T.
  const T of_small = (s - p.log_std.high) - fma(T(0.5), of_s.u.high, p.log_std.low), e = rounded(excess);
  const T defect = log1p(e, e < T(-0.5) ? of_s.value.high * p.inverse.high : T(1) + e).defect;
  const bool is_small = (s < T(-20)) & (absolute(e) > T(0.5));
  return {excess, is_small ? e - of_small : defect, of_s.relative_slope};
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
