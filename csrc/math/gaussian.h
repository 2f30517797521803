// The Gaussian posterior q(z|x) = N(mu, sigma^2) in the three forms in which encoders give its scale.
//
//   sample        z  = mu + sigma eps
//   divergence    KL(q || N(0, 1)) = 1/2 (mu^2 + sigma^2 - 1 - log sigma^2)      Kingma & Welling 2014, appendix B
//
// Each form gives sigma(s), the scale's part of the divergence, and the derivatives of both by s.
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// s = log sigma^2
struct LogVariance {
  template <class T>
  PYVAE_HD static T sigma(T s) {
    return exp(T(0.5) * s);
  }
  template <class T>
  PYVAE_HD static T divergence(T s) {  // 1/2 (e^s - 1 - s)
    return T(0.5) * exp_excess(s);
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
  template <class T>
  PYVAE_HD static T sigma(T s) {
    return s;
  }
  // 1/2 (s^2 - 1) - log s. Near 1, with d = s - 1 and log(1 + d) = d - d^2/2 + d^3 P(d), it is d^2 (1 - d P(d)).
  template <class T>
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
  template <class T>
  PYVAE_HD static T sigma(T s) {
    return exp(s);
  }
  template <class T>
  PYVAE_HD static T divergence(T s) {  // 1/2 (e^2s - 1 - 2s)
    return T(0.5) * exp_excess(T(2) * s);
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

// The forms in the order of their codes (pyvae/_checks.py: SCALES).
#define PYVAE_SCALES(X) X(LogVariance, "logvar") X(StandardDeviation, "std") X(LogStandardDeviation, "logstd")

}  // namespace PYVAE_ISA
}  // namespace pyvae
