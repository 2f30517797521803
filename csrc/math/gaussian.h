// The Gaussian posterior q(z|x) = N(mu, sigma^2) in the three forms in which encoders give its scale.
//
//   sample        z  = mu + sigma eps
//   divergence    KL(q || N(0, 1)) = 1/2 (mu^2 + sigma^2 - 1 - log sigma^2)      Kingma & Welling 2014, appendix B
//
// Each form gives sigma(s), the scale's part of the divergence, and the derivatives of both by s. Where |s| <=
// kModerate the first two have a shorter way to the same bits. `Posterior` is what both devices compute of a form.
#pragma once

#include "math/elementary.h"
#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// s = log sigma^2
struct LogVariance {
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
};

// s = sigma
struct StandardDeviation {
  static constexpr const char* kName = "std";
  static constexpr float kModerate = 0;  // nothing is gained
  template <bool kModerate = false, class T>
  PYVAE_HD static T sigma(T s) {
    return s;
  }
  // 1/2 (s^2 - 1) - log s. Near 1, with d = s - 1 and log(1 + d) = d - d^2/2 + d^3 P(d), it is d^2 (1 - d P(d)).
  template <bool kModerate = false, class T>
  PYVAE_HD static T divergence(T s) {
    const T d = s - T(1);
    const T near = (d * d) * (T(1) - d * log_polynomial(d));
    const T far = T(0.5) * (d * (s + T(1))) - log(s);
    return (s > T(0.75)) & (s < T(1.375)) ? near : far;
  }
  template <class T>
  PYVAE_HD static T sigma_derivative(T, T) {
    return T(1);
  }
  template <class T>
  PYVAE_HD static T divergence_derivative(T s) {  // d KL / ds = s - 1/s
    return (s - T(1)) * (s + T(1)) / s;
  }
};

// s = log sigma
struct LogStandardDeviation {
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
};

// In the order of their codes.
using Scales = Types<LogVariance, StandardDeviation, LogStandardDeviation>;

template <class T>
struct PosteriorGradient {
  T mu, scale;
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
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
