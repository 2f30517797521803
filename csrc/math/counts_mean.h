// The likelihoods of counts whose recon is the mean itself. eps, usually a number, is added to it, to keep the mean of
// a count above 0 away from 0. Value and derivatives are those of counts.h and negative_binomial.h; for a mean below 0
// they are NaN.
//
// At x = 0 the derivative by the mean is finite for every mean, even 0; the derivative by its log does not give it.
#pragma once

#include "math/negative_binomial.h"

namespace pyvae {
inline namespace PYVAE_ISA {

struct MeanTraits : CountTraits {
  static constexpr Softmax kSoftmax = Softmax::kNever;
  static constexpr bool kLogMean = false;
};

// Poisson(mean).
//   value   mu - x log mu + lgamma(x + 1) = x (e^d - 1 - d) + S(x),  d = log(mu / x)
//   by mean (mu - x) / mu, and by eps the same
struct PoissonMean : MeanTraits {
  static constexpr const char* kName = "poisson_mean";
  static constexpr int kParameters = 1;  // eps
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T recon, T x, const T (&own)[1]) {
    const T mean = recon + own[0], refused = refusal(x) + refusal(mean);
    const LogRatio<T> ratio = log_ratio_of_mean<Math>(mean, x);
    const T value = move_weight(x, ratio.delta, mean).excess + saturated<Math>(x, ratio.log_x);
    const T by_mean = Math::divide(mean - x, mean) + refused;
    return {value + refused, by_mean, {by_mean}};
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate_zero(T recon, const T (&own)[1]) {
    const T mean = recon + own[0], refused = refusal(mean);
    return {mean + refused, T(1) + refused, {T(1) + refused}};
  }
};

struct NegativeBinomialMean : MeanTraits {
  static constexpr const char* kName = "negative_binomial_mean";
  static constexpr int kParameters = 2, kFirst = 2;  // log theta, eps

  template <class Math, class T>
  PYVAE_HD static void prepare_first(T log_theta, T (&own)[2]) {
    NegativeBinomial::prepare_first<Math>(log_theta, own);
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate(T recon, T x, const T (&parameters)[2]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate<Math>(recon, x, {own[0], own[1], parameters[1]});
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate_zero(T recon, const T (&parameters)[2]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate_zero<Math>(recon, {own[0], own[1], parameters[1]});
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate(T recon, T x, const T (&own)[3]) {
    const T mean = recon + own[2];
    const LogRatio<T> ratio = log_ratio_of_mean<Math>(mean, x);
    return of(NegativeBinomial::evaluate_at<Math, true>(mean, x, ratio, {own[0], own[1]}), mean);
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate_zero(T recon, const T (&own)[3]) {
    const T mean = recon + own[2];
    return of(NegativeBinomial::zero_of<Math, true>(mean, own[0], own[1]).terms, mean);
  }

 private:
  template <class T>
  PYVAE_HD static Terms<T, 2> of(const Terms<T, 1>& t, T mean) {
    const T refused = refusal(mean), by_mean = t.derivative + refused;
    return {t.value + refused, by_mean, {t.parameters[0] + refused, by_mean}};
  }
};

struct ZeroInflatedNegativeBinomialMean : MeanTraits {
  static constexpr const char* kName = "zero_inflated_negative_binomial_mean";
  static constexpr int kParameters = 3, kFirst = 2;  // log theta, rho = zi_logits, eps

  template <class Math, class T>
  PYVAE_HD static void prepare_first(T log_theta, T (&own)[2]) {
    NegativeBinomial::prepare_first<Math>(log_theta, own);
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 3> evaluate(T recon, T x, const T (&parameters)[3]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate<Math>(recon, x, {own[0], own[1], parameters[1], parameters[2]});
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 3> evaluate_zero(T recon, const T (&parameters)[3]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate_zero<Math>(recon, {own[0], own[1], parameters[1], parameters[2]});
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 3> evaluate(T recon, T x, const T (&own)[4]) {
    const T mean = recon + own[3];
    const LogRatio<T> ratio = log_ratio_of_mean<Math>(mean, x);
    return of(ZeroInflatedNegativeBinomial::evaluate_at<Math, true>(mean, x, ratio, {own[0], own[1], own[2]}), mean);
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 3> evaluate_zero(T recon, const T (&own)[4]) {
    const T mean = recon + own[3];
    return of(ZeroInflatedNegativeBinomial::evaluate_zero_at<Math, true>(mean, {own[0], own[1], own[2]}), mean);
  }

 private:
  template <class T>
  PYVAE_HD static Terms<T, 3> of(const Terms<T, 2>& t, T mean) {
    const T refused = refusal(mean), by_mean = t.derivative + refused;
    return {t.value + refused, by_mean, {t.parameters[0] + refused, t.parameters[1] + refused, by_mean}};
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
