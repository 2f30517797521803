// The likelihoods p(x|z): the negative log-likelihood of one element, in nats, and its derivative by `recon`.
//
// `Math` gives the functions that a device may replace by hardware versions: Exact (exact.h) on the CPU.
//
// To add a likelihood: add a functor here or in counts.h, at the end of `Likelihoods`; its reference in
// pyvae/likelihoods/; its entry in the tests' registry.
#pragma once

#include "math/counts_mean.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// recon = p, the probability of a 1. Both logarithms are clamped at -100 and the derivative's denominator at 1e-12, as
// in torch's binary_cross_entropy.
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
// Both use the same two factors, which swap with the sign of x:
//   x > 0:  near = 1 - t, far = -w t;  else the other way round
//   value = near (x +- log(1 + u)) -+ far log(1 + u), with the upper signs if x > 0; for w = 1, |near x| + log(1 + u)
//   derivative = (near + far u) / (1 + u)
template <class Math, bool kWeighted, class T>
PYVAE_HD Terms<T, 0> bernoulli_of_logit(T x, T t, T weight) {
  const T zeros = T(1) - t, ones = kWeighted ? weight * -t : -t;
  const bool positive = x > T(0);
  const T near = positive ? zeros : ones, far = positive ? ones : zeros;
  const T u = Math::exp_negative(positive ? -x : x);
  const T log_partition = log1p_unit(u), outward = positive ? log_partition : -log_partition;
  // If the logit is infinite on its target's side, its term is 0.
  const T kept = near == T(0) ? T(0) : x;
  // Each factor is applied to its whole sum at once, since an infinite w could meet a zero in a single summand.
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

// 1 or -1; x itself if it is 0 or NaN.
template <class T>
PYVAE_HD T sign_of(T x) {
  return absolute(x) > T(0) ? copy_sign(T(1), x) : x;
}

// recon = the median of Laplace(recon, 1); the constant log 2 is left out.
//   value      |recon - t|
//   derivative sign(recon - t), 0 at 0
struct Laplace : Traits {
  static constexpr const char* kName = "laplace";
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T recon, T t, const T (&)[1]) {
    const T difference = recon - t;
    return {absolute(difference), sign_of(difference), {}};
  }
};

// recon = the mean of N(recon, e^s), s = log of the variance; the constant 1/2 log(2 pi) is left out.
//   value    1/2 (recon - t)^2 e^-s + 1/2 s
//   by recon (recon - t) e^-s
//   by s     1/2 - 1/2 (recon - t)^2 e^-s
// With e^-s = part step^4, the difference is multiplied by each factor in turn, before their product can overflow: a
// feature that is reconstructed exactly costs 1/2 s, however small the variance is.
struct GaussianLogvar : Traits {
  static constexpr const char* kName = "gaussian_logvar";
  static constexpr int kParameters = 1, kPrepared = 3;
  template <class Math, class T>
  PYVAE_HD static void prepare(const T (&s)[1], T (&prepared)[3]) {
    const Factored<T> precision = Math::exp_minus_factored(s[0]);
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
// e^-s has factors as in GaussianLogvar.
struct LaplaceLogscale : Traits {
  static constexpr const char* kName = "laplace_logscale";
  static constexpr int kParameters = 1, kPrepared = 3;
  template <class Math, class T>
  PYVAE_HD static void prepare(const T (&s)[1], T (&prepared)[3]) {
    const Factored<T> rate = Math::exp_minus_factored(s[0]);
    prepared[0] = s[0], prepared[1] = rate.part, prepared[2] = rate.step;
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T recon, T t, const T (&prepared)[3]) {
    const T s = prepared[0], difference = recon - t;
    const Factored<T> rate = {prepared[1], prepared[2]};
    const T scaled = rate.times(absolute(difference));
    // A product, so that a sign of 0 does not hide a NaN rate.
    return {scaled + s, rate.times(sign_of(difference)), {T(1) - scaled}};
  }
};

// The two series of ContinuousBernoulliLogits, in s = y^2 for y <= 2: (log((1 - e^-y) / y) + y/2) / y^2
PYVAE_HD float log_partition_polynomial(float s) {
  return polynomial(s, 0.04166666660f, -0.0003472213423f, 5.509676946e-6f, -1.020583370e-7f, 1.703650899e-9f);
}
PYVAE_HD double log_partition_polynomial(double s) {
  return polynomial(s, 0.041666666666666666660, -0.00034722222222222180372, 5.5114638447929670724e-6,
                    -1.0333994707340502423e-7, 2.0876756654126448277e-9, -4.4034878455947869524e-11,
                    9.5586641966630115844e-13, -2.1171660758282264476e-14, 4.7272443103385547609e-16,
                    -1.0036408532245457895e-17, 1.5304903295025537846e-19);
}

// and (1 / (1 - e^-y) - 1/y - 1/2) / y
PYVAE_HD float mean_polynomial(float s) {
  return polynomial(s, 0.08333333252f, -0.001388878627f, 3.304795664e-5f, -8.117536951e-7f, 1.636350915e-8f);
}
PYVAE_HD double mean_polynomial(double s) {
  return polynomial(s, 0.083333333333333333173, -0.0013888888888888791514, 0.000033068783068685246192,
                    -8.2671957633575651008e-7, 2.0876756214097245083e-8, -5.2841810150067062002e-10,
                    1.3381863257539124604e-11, -3.3864696698326903012e-13, 8.4866306626422449102e-15,
                    -1.9794557139351415675e-16, 3.2206370314612247594e-18);
}

// recon = x, a logit: the Bernoulli's value less log C, which makes it a density of t in [0, 1] (Loaiza-Ganem &
// Cunningham 2019). C = x / tanh(x/2), and the mean is M(x) = 1 / (1 - e^-x) - 1/x = 1 - M(-x). With y = |x|, u = e^-y:
//   value      (x > 0 ? 1 - t : t) y + log((1 - u) / y)
//   derivative M(x) - t = x > 0 ? (1 - t) - M(-y) : M(-y) - t,  M(-y) = 1/y - u / (1 - u)
// For y <= 2, where these cancel, by series in y^2 (P and Q above):
//   value (1/2 - t) x + y^2 P(y^2),  derivative (1/2 - t) + x Q(y^2)
struct ContinuousBernoulliLogits : Traits {
  static constexpr const char* kName = "continuous_bernoulli_logits";
  static constexpr bool kUnitTarget = true;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 0> evaluate(T x, T t, const T (&)[1]) {
    const bool positive = x > T(0);
    const T y = absolute(x), square = y * y, u = Math::exp_negative(-y);
    // Divides by a quarter of y, so that the quotient is a normal number, as the device's division requires: 1/y may be
    // denormal.
    const T inverse = T(0.25) * Math::divide(T(1), T(0.25) * y);
    const T mean = inverse - Math::divide(u, T(1) - u);  // M(-y)
    const T near = positive ? T(1) - t : t;
    // For an infinite logit the density is infinite if t is on its side, and 0 elsewhere.
    const bool on_its_side = near == T(0), infinite = y == Real<T>::kInfinity;
    const T distance = infinite & on_its_side ? T(0) : near * y, at_infinity = on_its_side ? -y : T(0);
    const T finite = Math::log_unit((T(1) - u) * inverse), log_partition = infinite ? at_infinity : finite;
    const T value = distance + log_partition, derivative = positive ? near - mean : mean - near;
    const T centered = T(0.5) - t;
    const bool is_small = y <= T(2);
    return {is_small ? fma(centered, x, square * log_partition_polynomial(square)) : value,
            is_small ? fma(x, mean_polynomial(square), centered) : derivative,
            {}};
  }
};

// In the order of their codes.
using Likelihoods = Types<Bernoulli, BernoulliLogits, Gaussian, Laplace, GaussianLogvar, LaplaceLogscale, Poisson,
                          NegativeBinomial, ZeroInflatedNegativeBinomial, Multinomial, ContinuousBernoulliLogits,
                          PoissonMean, NegativeBinomialMean, ZeroInflatedNegativeBinomialMean>;

}  // namespace PYVAE_ISA
}  // namespace pyvae
