// The likelihoods p(x|z): the negative log-likelihood of one element, in nats, and its derivative by `recon`.
//
// `Math` gives the functions whose exact forms a device may replace by its hardware's: Exact (elementary.h) on the CPU.
//
// To add one: a functor here or in counts.h, at the end of `Likelihoods`; its reference in pyvae/likelihoods/; its
// entry in the tests' registry.
#pragma once

#include "math/counts.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// recon = p, the probability of a one. Both logarithms are clamped at -100 and the derivative's denominator at 1e-12,
// as in torch's binary_cross_entropy.
//   value      -(t log p + (1 - t) log(1 - p))
//   derivative (p - t) / (p (1 - p))
struct Bernoulli : Traits {
  static constexpr const char* kName = "bernoulli";
  static constexpr bool kProbability = true;
  static constexpr bool kUnitTarget = true;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T p, T t, const T (&)[1]) {
    const T log_p = at_least(Math::log_unit(p), T(-100));
    const T log_rest = at_least(log1m_unit<Math>(p), T(-100));
    const T value = (t - T(1)) * log_rest - t * log_p;
    return {value, Math::divide(p - t, at_least((T(1) - p) * p, T(1e-12))), {}};
  }
};

// recon = x, a logit: p = sigmoid(x). With u = e^-|x|, no sum cancels and both tails are exact.
//   value      (1 - t) softplus(x) + w t softplus(-x),  softplus(x) = max(x, 0) + log(1 + u)
//   derivative (1 - t) sigmoid(x) - w t sigmoid(-x),    sigmoid(|x|) = 1 / (1 + u), sigmoid(-|x|) = u / (1 + u)
// Both hold the same two factors, which change places with the sign of x:
//   x > 0:  near = 1 - t, far = -w t;  else the other way round
//   value = near (x +- log(1 + u)) -+ far log(1 + u), with the upper signs if x > 0; of w = 1, |near x| + log(1 + u)
//   derivative = (near + far u) / (1 + u)
template <class Math, bool kWeighted, class T>
PYVAE_HD Terms<T, 0> bernoulli_of_logit(T x, T t, T weight) {
  const T zeros = T(1) - t, ones = kWeighted ? weight * -t : -t;
  const bool positive = x > T(0);
  const T near = positive ? zeros : ones, far = positive ? ones : zeros;
  const T u = Math::exp_negative(positive ? -x : x);
  const T log_partition = log1p_unit(u), outward = positive ? log_partition : -log_partition;
  // A logit that is infinite on its target's side: there is nothing of it in the sum.
  const T kept = near == T(0) ? T(0) : x;
  // Each factor meets all that it multiplies at once, since an infinite w may meet a zero in either summand.
  const T value = kWeighted ? fma(near, kept + outward, -far * outward) : fma(near, kept, log_partition);
  return {value, Math::divide(fma(far, u, near), T(1) + u), {}};
}

struct WeightedBernoulliLogits;
struct BernoulliLogits : Traits {
  static constexpr const char* kName = "bernoulli_logits";
  static constexpr bool kUnitTarget = true;
  using WithPosWeight = WeightedBernoulliLogits;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T x, T t, const T (&)[1]) {
    return bernoulli_of_logit<Math, false>(x, t, T(1));
  }
};
struct WeightedBernoulliLogits : BernoulliLogits {
  static constexpr bool kHasPosWeight = true;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T x, T t, const T (&pos_weight)[1]) {
    return bernoulli_of_logit<Math, true>(x, t, pos_weight[0]);
  }
};

// recon = the mean of N(recon, 1); the constant 1/2 log(2 pi) is left out.
//   value      1/2 (recon - t)^2
//   derivative recon - t
struct Gaussian : Traits {
  static constexpr const char* kName = "gaussian";
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T recon, T t, const T (&)[1]) {
    const T difference = recon - t;
    return {T(0.5) * difference * difference, difference, {}};
  }
};

// recon = the median of Laplace(recon, 1); the constant log 2 is left out.
//   value      |recon - t|
//   derivative sign(recon - t), 0 at 0
struct Laplace : Traits {
  static constexpr const char* kName = "laplace";
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T recon, T t, const T (&)[1]) {
    const T difference = recon - t;
    // The difference itself where it is 0 or NaN.
    return {absolute(difference), difference > T(0) ? T(1) : (difference < T(0) ? T(-1) : difference), {}};
  }
};

// recon = the mean of N(recon, e^s), s = log of the variance; the constant 1/2 log(2 pi) is left out.
//   value    1/2 (recon - t)^2 e^-s + 1/2 s
//   by recon (recon - t) e^-s
//   by s     1/2 - 1/2 (recon - t)^2 e^-s
// With e^-s = part step^4 the difference meets its factors before they leave the number range: a feature that is
// reconstructed exactly costs 1/2 s, however small the variance is.
struct GaussianLogvar : Traits {
  static constexpr const char* kName = "gaussian_logvar";
  static constexpr int kParameters = 1, kPrepared = 3;
  template <class Math, class T>
  PYVAE_HD static void prepare(const T (&s)[1], T (&prepared)[3]) {
    const Factored<T> precision = exp_factored(-s[0]);
    prepared[0] = T(0.5) * s[0], prepared[1] = precision.part, prepared[2] = precision.step;
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T recon, T t, const T (&prepared)[3]) {
    const T half_s = prepared[0], part = prepared[1], step = prepared[2];
    const T half_way = (recon - t) * step * step, scaled = half_way * part;
    const T half_square = T(0.5) * half_way * scaled;
    return {half_square + half_s, scaled * step * step, {T(0.5) - half_square}};
  }
};

// recon = the median of Laplace(recon, e^s), s = log of the scale; the constant log 2 is left out.
//   value    |recon - t| e^-s + s
//   by recon sign(recon - t) e^-s, 0 at 0
//   by s     1 - |recon - t| e^-s
// The factors of e^-s as for the variance above.
struct LaplaceLogscale : Traits {
  static constexpr const char* kName = "laplace_logscale";
  static constexpr int kParameters = 1, kPrepared = 3;
  template <class Math, class T>
  PYVAE_HD static void prepare(const T (&s)[1], T (&prepared)[3]) {
    const Factored<T> rate = exp_factored(-s[0]);
    prepared[0] = s[0], prepared[1] = rate.part, prepared[2] = rate.step;
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T recon, T t, const T (&prepared)[3]) {
    const T s = prepared[0], difference = recon - t;
    const Factored<T> rate = {prepared[1], prepared[2]};
    const T scaled = rate.times(absolute(difference));
    // The difference itself where it is 0 or NaN; a product, so that a NaN rate is not hidden by the 0.
    const T sign = difference > T(0) ? T(1) : (difference < T(0) ? T(-1) : difference);
    return {scaled + s, rate.times(sign), {T(1) - scaled}};
  }
};

// In the order of their codes.
using Likelihoods = Types<Bernoulli, BernoulliLogits, Gaussian, Laplace, GaussianLogvar, LaplaceLogscale, Poisson,
                          NegativeBinomial, ZeroInflatedNegativeBinomial, Multinomial>;

}  // namespace PYVAE_ISA
}  // namespace pyvae
