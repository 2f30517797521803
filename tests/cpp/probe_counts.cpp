// The likelihoods of counts over arrays, for tests/test_counts_math.py, in loops as in probe.cpp.
//
// Entry points, float and double forms, of gamma.h: log1p(n, w, value, defect); stirling(n, y1, y2, remainder, phi);
// saturated(n, x, y). Of counts.h and negative_binomial.h: NAME(n, a, x, parameters ..., value, derivative, parameters'
// derivatives ...) and NAME_zero, the same without x.

#include <cstdint>

#include "math/exact.h"
#include "math/negative_binomial.h"

#define GAMMA(T)                                                                                                     \
  extern "C" void log1p_##T(int64_t n, const T* __restrict w, T* __restrict value, T* __restrict defect) {           \
    for (int64_t i = 0; i < n; ++i) {                                                                                \
      const auto log = pyvae::log1p(w[i]);                                                                           \
      value[i] = log.value, defect[i] = log.defect;                                                                  \
    }                                                                                                                \
  }                                                                                                                  \
  extern "C" void stirling_##T(int64_t n, const T* __restrict y1, const T* __restrict y2, T* __restrict remainder,   \
                               T* __restrict phi) {                                                                  \
    for (int64_t i = 0; i < n; ++i) {                                                                                \
      const auto slopes = pyvae::stirling_slopes(y1[i], y2[i]);                                                      \
      remainder[i] = slopes.remainder, phi[i] = slopes.phi;                                                          \
    }                                                                                                                \
  }                                                                                                                  \
  extern "C" void saturated_##T(int64_t n, const T* __restrict x, T* __restrict y) {                                 \
    for (int64_t i = 0; i < n; ++i) y[i] = pyvae::saturated<pyvae::Exact>(x[i], pyvae::log_ratio(T(0), x[i]).log_x); \
  }
GAMMA(float)
GAMMA(double)

// The pointers one by one: restrict says of each that it overlaps with no other, or g++ would not vectorize.
template <class Likelihood, bool kZero, class T>
void loop(int64_t n, const T* __restrict a, const T* __restrict x, T* __restrict value, T* __restrict derivative) {
  for (int64_t i = 0; i < n; ++i) {
    const T none[1] = {T(0)};
    const auto terms = kZero ? Likelihood::template evaluate_zero<pyvae::Exact>(a[i], none)
                             : Likelihood::template evaluate<pyvae::Exact>(a[i], x[i], none);
    value[i] = terms.value, derivative[i] = terms.derivative;
  }
}
template <class Likelihood, bool kZero, class T>
void loop(int64_t n, const T* __restrict a, const T* __restrict x, const T* __restrict r, T* __restrict value,
          T* __restrict derivative, T* __restrict by_r) {
  for (int64_t i = 0; i < n; ++i) {
    const T parameters[1] = {r[i]};
    const auto terms = kZero ? Likelihood::template evaluate_zero<pyvae::Exact>(a[i], parameters)
                             : Likelihood::template evaluate<pyvae::Exact>(a[i], x[i], parameters);
    value[i] = terms.value, derivative[i] = terms.derivative, by_r[i] = terms.parameters[0];
  }
}
template <class Likelihood, bool kZero, class T>
void loop(int64_t n, const T* __restrict a, const T* __restrict x, const T* __restrict r, const T* __restrict rho,
          T* __restrict value, T* __restrict derivative, T* __restrict by_r, T* __restrict by_rho) {
  for (int64_t i = 0; i < n; ++i) {
    const T parameters[2] = {r[i], rho[i]};
    const auto terms = kZero ? Likelihood::template evaluate_zero<pyvae::Exact>(a[i], parameters)
                             : Likelihood::template evaluate<pyvae::Exact>(a[i], x[i], parameters);
    value[i] = terms.value, derivative[i] = terms.derivative;
    by_r[i] = terms.parameters[0], by_rho[i] = terms.parameters[1];
  }
}

#define EXPAND(...) __VA_ARGS__
#define COUNTS_OF(T, NAME, LIKELIHOOD, POINTERS, ARGUMENTS)                        \
  extern "C" void NAME##_##T(int64_t n, const T* a, const T* x, EXPAND POINTERS) { \
    loop<pyvae::LIKELIHOOD, false>(n, a, x, EXPAND ARGUMENTS);                     \
  }                                                                                \
  extern "C" void NAME##_zero_##T(int64_t n, const T* a, EXPAND POINTERS) {        \
    loop<pyvae::LIKELIHOOD, true>(n, a, a, EXPAND ARGUMENTS);                      \
  }
#define COUNTS(T)                                                                                   \
  COUNTS_OF(T, poisson, Poisson, (T * value, T * derivative), (value, derivative))                  \
  COUNTS_OF(T, multinomial, Multinomial, (T * value, T * derivative), (value, derivative))          \
  COUNTS_OF(T, negative_binomial, NegativeBinomial, (const T* r, T* value, T* derivative, T* by_r), \
            (r, value, derivative, by_r))                                                           \
  COUNTS_OF(T, zero_inflated_negative_binomial, ZeroInflatedNegativeBinomial,                       \
            (const T* r, const T* rho, T* value, T* derivative, T* by_r, T* by_rho),                \
            (r, rho, value, derivative, by_r, by_rho))
COUNTS(float)
COUNTS(double)
