// The Gaussian posterior q(z|x) = N(mu, sigma^2), for each form in which encoders give its scale.
//
//   sample        z  = mu + sigma eps
//   divergence    KL(q || N(0, 1)) = 1/2 (mu^2 + sigma^2 - 1 - log sigma^2)      Kingma & Welling 2014, appendix B
//                 KL(q || N(m, p^2)) = 1/2 ((mu - m)^2 / p^2 + e^d - 1 - d),     d = log sigma^2 - log p^2
//
// Each form gives sigma(s), the scale's part of the divergence, the derivatives of both by s, and `width`, which a
// density needs. If |s| <= kModerate, sigma and the divergence have a shorter path to the same bits.
// A prior's scale, t, has the same form as the posterior's: `of_prior` is what is computed from it alone, `spread` is
// the two scales' part of the divergence. p^2 must be neither 0 nor infinite: in float for p from 1e-19 to 1e19.
// `Posterior` is what both devices compute for a form.
#pragma once

#include "math/density.h"
#include "math/softplus.h"
#include "math/spread.h"
#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// The traits of a form, besides its name: the defaults.
struct FormTraits {
  static constexpr bool kNonNegative = false;  // its numbers must be 0 or more
  static constexpr float kModerate = 0;        // up to this |s|, sigma and divergence have a shorter path
  static constexpr bool kLongPrior = false;    // the prior's numbers need many registers
  template <class T>
  using OfPrior = PriorScale<T>;
};

// s = log sigma^2
struct LogVariance : FormTraits {
  static constexpr const char* kName = "logvar";
  static constexpr float kModerate = 80;
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {
    return kModerate ? exp_moderate(T(0.5) * s) : exp(T(0.5) * s);
  }
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {  // 1/2 (e^s - 1 - s)
    return T(0.5) * exp_excess<kModerate>(s);
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T, T sigma) {  // d sigma / ds = sigma / 2
    return T(0.5) * sigma;
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = 1/2 (e^s - 1)
    return T(0.5) * expm1(s);
  }
  template <class T>
  PYVAE_HD static Width<T> width(T s) {
    return {T(0.5) * s, exp(T(-0.5) * s), T(0.5)};
  }
  template <class T>
  PYVAE_HD static PriorScale<T> of_prior(T t) {
    return {t, exp(t)};
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, PriorScale<T> p) {  // d log sigma^2 / ds = 1
    return spread_of_logarithms(s, p.scale, T(1));
  }
  // 1/2 ((mu - m)^2 / p^2 + e^d - 1)
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T, T mean, PriorScale<T> p, T slope) {
    const T distance = mu - mean;
    return fma(T(0.5) * distance, p.over_variance(distance), slope);
  }
};

// s = sigma
struct StandardDeviation : FormTraits {
  static constexpr const char* kName = "std";
  static constexpr bool kNonNegative = true;
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {  // a negative s is not a sigma
    return s < T(0) ? T(__builtin_nan("")) : s;
  }
  // 1/2 (s^2 - 1) - log s
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {
    const T d = s - T(1);
    const T near = near_one(d);
    const T far = (T(0.5) * d) * (s + T(1)) - log(s);  // half of s^2 may be finite if s^2 is not
    return is_near_one(d) ? near : far;
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T, T) {
    return T(1);
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = s - 1/s, also if s^2 is infinite
    return (s - T(1)) * (T(1) + T(1) / s);
  }
  template <class T>
  PYVAE_HD static Width<T> width(T s) {
    return {log(s), T(1) / sigma(s), T(1) / s};
  }
  template <class T>
  PYVAE_HD static PriorScale<T> of_prior(T t) {
    return {t, t * t};
  }
  // Near 1, s/t - 1 is computed from s - t, which is exact up to a factor of 2 between s and t, and rounded beyond.
  // Elsewhere the rounding error of the quotient would show in the logarithm, so it is added back.
  // d log sigma^2 / ds = 2/s
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, PriorScale<T> prior) {
    const T p = sigma(prior.scale), ratio = sigma(s) / p;
    const T lost = s > T(0) ? fma(-ratio, prior.scale, s) / s : T(0);
    Spread<T> spread = spread_of_ratio((sigma(s) - p) / p, log(ratio) + lost);
    spread.by_scale = T(2) * spread.slope / s;
    return spread;
  }
  // ((mu - m)^2 + s^2 - t^2) / t^3, in double: in float seven roundings would add up to five units.
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T s, T mean, PriorScale<T> p, T) {
    const double distance = double(mu) - double(mean), t = p.scale;
    return T(fma(distance, distance, (double(s) - t) * (double(s) + t)) / (t * t) / t);
  }
};

// s = log sigma
struct LogStandardDeviation : FormTraits {
  static constexpr const char* kName = "logstd";
  static constexpr float kModerate = 40;
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {
    return kModerate ? exp_moderate(s) : exp(s);
  }
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {  // 1/2 (e^2s - 1 - 2s)
    return T(0.5) * exp_excess<kModerate>(T(2) * s);
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T, T sigma) {  // d sigma / ds = sigma
    return sigma;
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = e^2s - 1
    return expm1(T(2) * s);
  }
  template <class T>
  PYVAE_HD static Width<T> width(T s) {
    return {s, exp(-s), T(1)};
  }
  template <class T>
  PYVAE_HD static PriorScale<T> of_prior(T t) {
    return {t, exp(T(2) * t)};
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, PriorScale<T> p) {  // d log sigma^2 / ds = 2
    return spread_of_logarithms(s, p.scale, T(2));
  }
  // (mu - m)^2 / p^2 + e^d - 1
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T, T mean, PriorScale<T> p, T slope) {
    const T distance = mu - mean;
    return T(2) * fma(T(0.5) * distance, p.over_variance(distance), slope);
  }
};

// s = rho: sigma = softplus(s) = log(1 + e^s)
struct Softplus : FormTraits {
  static constexpr const char* kName = "rho";
  static constexpr bool kLongPrior = true;
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {
    return softplus(s).value;
  }
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {  // 1/2 (sigma^2 - 1) - log sigma
    return softplus_divergence(s);
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T s, T) {  // d sigma / ds = sigmoid(s)
    return softplus(s).slope;
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = (sigma - 1/sigma) sigmoid(s)
    return softplus_divergence_derivative(s);
  }
  template <class T>
  PYVAE_HD static Width<T> width(T s) {
    const SoftplusParts<T> p = softplus(s);
    return {p.exponent + log(p.part), T(1) / p.value, p.relative_slope};
  }
  template <class T>
  using OfPrior = SoftplusPrior<T>;
  template <class T>
  PYVAE_HD static SoftplusPrior<T> of_prior(T t) {
    return SoftplusPrior<T>(t);
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, const SoftplusPrior<T>& p) {  // d log sigma^2 / ds = 2 sigmoid(s) / sigma
    const SoftplusRatio<T> ratio = softplus_ratio(s, p);
    const Pair<T> more = fast_sum(T(2), ratio.excess);  // sigma/p + 1
    const T e = rounded(ratio.excess);
    // The first product is finite if the square of sigma/p is not.
    const Pair<T> by_scale = (ratio.excess * ratio.relative_slope) * more;
    return {fma(T(0.5) * e, e, ratio.defect), T(0.5) * rounded(ratio.excess * more), rounded(by_scale)};
  }
  // ((mu - m)^2 / p^2 + e^d - 1) sigmoid(t) / p, in double: in float the roundings would add up.
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T, T mean, const SoftplusPrior<T>& p, T slope) {
    const double inverse = double(p.inverse.high) + double(p.inverse.low);
    const double relative = (double(mu) - double(mean)) * inverse;
    const double relative_slope = double(p.relative_slope.high) + double(p.relative_slope.low);
    return T(fma(relative, relative, 2 * double(slope)) * relative_slope);
  }
};

// In the order of their codes.
using Scales = Types<LogVariance, StandardDeviation, LogStandardDeviation, Softplus>;

template <class T>
struct PosteriorGradient {
  T mu, scale;
};

template <class T>
struct PriorGradient {
  T mean, scale;
};

template <class T>
struct DivergenceGradient {
  PosteriorGradient<T> posterior;
  PriorGradient<T> prior;
};

// Clamps a scale to a range, like torch.clamp. Its derivative is 1 inside and at the ends (in torch the derivative at
// the ends depends on the version: 1 until 2.13, then 0), and 0 outside and for NaN.
template <class T>
struct Clamp {
  T low, high;

  PYVAE_HD T operator()(T s) const { return at_least(at_most(s, high), low); }
  PYVAE_HD T gradient(T s, T grad) const { return ((s >= low) & (s <= high)) ? grad : T(0); }
};

template <class Scale>
struct Posterior {
  template <class T>
  using OfPrior = typename Scale::template OfPrior<T>;

  // z = mu + sigma eps: one rounding with drawn noise; two with the caller's noise, like `mu + sigma * eps` in torch.
  template <bool kOwnNoise, class T>
  PYVAE_HD static T sample(T mu, T sigma, T eps) {
    return kOwnNoise ? fma(sigma, eps, mu) : mu + sigma * eps;
  }

  // d z / d mu = 1, d z / d s = eps d sigma / ds, times g_z
  template <class T>
  PYVAE_HD static PosteriorGradient<T> sample_gradient(T s, T eps, T grad_z) {
    return {grad_z, grad_z * eps * Scale::sigma_derivative(s, Scale::sigma(s))};
  }

  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T mu, T s) {
    return fma(T(0.5) * mu, mu, Scale::template divergence<kModerate>(s));
  }

  // d KL / d mu = mu, d KL / d s, times g_kl; added to the sample's.
  template <class T>
  PYVAE_HD static PosteriorGradient<T> divergence_gradient(T mu, T s, T grad_kl, PosteriorGradient<T> sample = {}) {
    return {fma(grad_kl, mu, sample.mu), fma(grad_kl, Scale::divergence_derivative(s), sample.scale)};
  }

  // With a prior: 1/2 (mu - m)^2 / p^2 + spread.
  template <class T>
  PYVAE_HD static T divergence(T mu, T s, T mean, const OfPrior<T>& prior) {
    const T distance = mu - mean;
    return fma(T(0.5) * distance, prior.over_variance(distance), Scale::spread(s, prior).value);
  }

  template <class T>
  PYVAE_HD static DivergenceGradient<T> divergence_gradient(T mu, T s, T mean, const OfPrior<T>& prior, T grad_kl,
                                                            PosteriorGradient<T> sample = {}) {
    const Spread<T> spread = Scale::spread(s, prior);
    // d KL / d mu = (mu - m) / p^2
    const T to_mu = prior.over_variance(mu - mean);
    // d KL / ds = 1/2 (e^d - 1) d log sigma^2 / ds
    const T to_scale = spread.by_scale;
    // d KL / dm = -(mu - m) / p^2
    const T to_mean = -to_mu;
    // d KL / dt = -1/2 ((mu - m)^2 / p^2 + e^d - 1) d log p^2 / dt
    const T to_prior_scale = T(0) - Scale::prior_derivative(mu, s, mean, prior, spread.slope);
    return {{fma(grad_kl, to_mu, sample.mu), fma(grad_kl, to_scale, sample.scale)},
            {grad_kl * to_mean, grad_kl * to_prior_scale}};
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
