// The Gaussian posterior q(z|x) = N(mu, sigma^2) in the forms in which encoders give its scale.
//
//   sample        z  = mu + sigma eps
//   divergence    KL(q || N(0, 1)) = 1/2 (mu^2 + sigma^2 - 1 - log sigma^2)      Kingma & Welling 2014, appendix B
//                 KL(q || N(m, p^2)) = 1/2 ((mu - m)^2 / p^2 + e^d - 1 - d),     d = log sigma^2 - log p^2
//
// Each form gives sigma(s), the scale's part of the divergence, and the derivatives of both by s. Where |s| <=
// kModerate the first two have a shorter way to the same bits. A prior's scale, t, comes in the posterior's own form;
// `spread` is what the two make of the divergence. p^2 must be a number: in float for p from 1e-19 to 1e19. `Posterior`
// is what both devices compute of a form.
#pragma once

#include "math/softplus.h"
#include "math/spread.h"
#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// N(m, p^2): its mean m and, in the posterior's form, its scale t; or the gradients of both.
template <class T>
struct Prior {
  T mean, scale;
};

// What a form says of itself, next to its name: here the usual answers.
struct FormTraits {
  static constexpr bool kNonNegative = false;  // its numbers have to be 0 or more
  static constexpr float kModerate = 0;        // where |s| is not above, sigma and divergence have a shorter way
  static constexpr bool kLongPrior = false;    // what it makes of a prior takes many registers
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
  PYVAE_HD static T variance(T s) {  // sigma^2
    return exp(s);
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, T t) {
    return spread_of_logarithms(s, t, T(1));
  }
  template <class T>
  PYVAE_HD static T from_log_variance(T slope, T) {  // times d log sigma^2 / ds = 1
    return slope;
  }
  // Of `both`, 1/2 ((mu - m)^2 / p^2 + e^d - 1).
  template <class T>
  PYVAE_HD static T prior_derivative(T, T, Prior<T>, T both) {
    return both;
  }
};

// s = sigma
struct StandardDeviation : FormTraits {
  static constexpr const char* kName = "std";
  static constexpr bool kNonNegative = true;
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {  // a negative one is none
    return s < T(0) ? T(__builtin_nan("")) : s;
  }
  // 1/2 (s^2 - 1) - log s
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {
    const T d = s - T(1);
    const T near = near_one(d);
    const T far = (T(0.5) * d) * (s + T(1)) - log(s);  // so that the half is finite where s^2 is not
    return is_near_one(d) ? near : far;
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T, T) {
    return T(1);
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = s - 1/s, also where s^2 is infinite
    return (s - T(1)) * (T(1) + T(1) / s);
  }
  template <class T>
  PYVAE_HD static T variance(T s) {  // sigma^2
    return s * s;
  }
  // Near 1, s/t - 1 comes from s - t, which is exact up to a factor of 2 and rounded beyond; elsewhere the logarithm
  // would show what the quotient rounds off, relative to it.
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, T t) {
    const T p = sigma(t), ratio = sigma(s) / p;
    const T lost = s > T(0) ? fma(-ratio, t, s) / s : T(0);
    return spread_of_ratio((sigma(s) - p) / p, log(ratio) + lost);
  }
  template <class T>
  PYVAE_HD static T from_log_variance(T slope, T s) {  // times d log sigma^2 / ds = 2/s
    return T(2) * slope / s;
  }
  // ((mu - m)^2 + s^2 - t^2) / t^3, in double: in float seven roundings would add up to five units.
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T s, Prior<T> prior, T) {
    const double distance = double(mu) - double(prior.mean), t = prior.scale;
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
  PYVAE_HD static T variance(T s) {  // sigma^2
    return exp(T(2) * s);
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, T t) {
    return spread_of_logarithms(s, t, T(2));
  }
  template <class T>
  PYVAE_HD static T from_log_variance(T slope, T) {  // times d log sigma^2 / ds = 2
    return T(2) * slope;
  }
  template <class T>
  PYVAE_HD static T prior_derivative(T, T, Prior<T>, T both) {
    return T(2) * both;
  }
};

// s = rho: sigma = softplus(s) = log(1 + e^s). Of a prior everything is computed in double: its derivatives go with
// sigma^2 / p^2, for which float would add up more than four units.
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
  PYVAE_HD static T variance(T s) {  // sigma^2
    const double sigma = softplus(double(s)).value;
    return T(sigma * sigma);
  }
  template <class T>
  PYVAE_HD static Spread<T> spread(T s, T t) {
    const Spread<double> exact = spread_in_double(s, t);
    return {T(exact.value), T(exact.slope)};
  }
  template <class T>
  PYVAE_HD static T from_log_variance(T slope, T s) {  // times d log sigma^2 / ds = 2 sigmoid(s) / sigma
    return T(2 * double(slope) * softplus(double(s)).relative_slope);
  }
  // ((mu - m)^2 / p^2 + e^d - 1) sigmoid(t) / p
  template <class T>
  PYVAE_HD static T prior_derivative(T mu, T s, Prior<T> prior, T) {
    const SoftplusParts<double> p = softplus(double(prior.scale));
    const double relative = (double(mu) - double(prior.mean)) / p.value;
    const double slope = spread_in_double(s, prior.scale).slope;
    return T(fma(relative, relative, 2 * slope) * p.relative_slope);
  }

 private:
  PYVAE_HD static Spread<double> spread_in_double(double s, double t) {
    return spread_of_ratio(softplus_excess(s, t), softplus_log_ratio(s, t));
  }
};

// In the order of their codes.
using Scales = Types<LogVariance, StandardDeviation, LogStandardDeviation, Softplus>;

template <class T>
struct PosteriorGradient {
  T mu, scale;
};

template <class T>
struct DivergenceGradient {
  PosteriorGradient<T> posterior;
  Prior<T> prior;
};

// The range that a scale is kept in, as by torch.clamp; its derivative is 1 within and at the ends (where torch's
// depends on its version: 1 until 2.13, then 0), and 0 outside and of NaN.
template <class T>
struct Clamp {
  T low, high;

  PYVAE_HD T operator()(T s) const { return at_least(at_most(s, high), low); }
  PYVAE_HD T gradient(T s, T grad) const { return ((s >= low) & (s <= high)) ? grad : T(0); }
};

template <class Scale>
struct Posterior {
  // z = mu + sigma eps: in one rounding with noise of our own, in two with the caller's, as `mu + sigma * eps` has it.
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

  // From a prior: 1/2 (mu - m)^2 / p^2 + spread.
  template <class T>
  PYVAE_HD static T divergence(T mu, T s, Prior<T> prior) {
    const T distance = mu - prior.mean;
    return fma(T(0.5) * distance, distance / Scale::variance(prior.scale), Scale::spread(s, prior.scale).value);
  }

  template <class T>
  PYVAE_HD static DivergenceGradient<T> divergence_gradient(T mu, T s, Prior<T> prior, T grad_kl,
                                                            PosteriorGradient<T> sample = {}) {
    const T distance = mu - prior.mean, slope = Scale::spread(s, prior.scale).slope;
    // d KL / d mu = (mu - m) / p^2
    const T to_mu = distance / Scale::variance(prior.scale);
    // d KL / ds = 1/2 (e^d - 1) d log sigma^2 / ds
    const T to_scale = Scale::from_log_variance(slope, s);
    // d KL / dm = -(mu - m) / p^2
    const T to_mean = -to_mu;
    // d KL / dt = -1/2 ((mu - m)^2 / p^2 + e^d - 1) d log p^2 / dt
    const T to_prior_scale = T(0) - Scale::prior_derivative(mu, s, prior, fma(T(0.5) * distance, to_mu, slope));
    return {{fma(grad_kl, to_mu, sample.mu), fma(grad_kl, to_scale, sample.scale)},
            {grad_kl * to_mean, grad_kl * to_prior_scale}};
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
