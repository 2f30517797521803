// The negative binomial, with and without extra zeros; conventions and error bounds as in counts.h. With kMean the
// functions take the mean itself, for counts_mean.h.
#pragma once

#include "math/counts.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// NegativeBinomial(mean mu = e^a, theta = e^r): variance mu + mu^2 / theta. psi = lgamma', log1p(w) = log(1 + w).
//   value  theta log1p(mu/theta) + x log1p(theta/mu) - lgamma(x + theta) + lgamma(theta) + lgamma(x + 1)
//   by a   theta (mu - x) / (theta + mu)
//   by r   theta (log1p(mu/theta) - (mu - x) / (theta + mu) - psi(theta + x) + psi(theta))
// With n = theta + x, the deviance is n times the divergence of Bernoulli(x/n) from Bernoulli(mu/(theta + mu)). This is
// symmetric in x and theta, so the code uses the smaller of them, m, and the larger, k.
// The odds differ by e^d, d = a - log x; s = +-d, with the positive sign if m = x:
//   deviance = n log1p(w) - m s = m (e^s - 1 - s) - n (w - log1p(w)),  w = m (e^s - 1) / n >= -1/2
//   by a     = +-k m (e^s - 1) / (k + m e^s)
// The saturated term's lgammas and psis are those of 1 + theta and 1 + n, in Stirling's range for every theta:
//   saturated = S(x) + 1/2 log1p(x/(1 + theta)) + R(1 + theta) - R(1 + n) + (1 + theta) log1p(e) - x log1p(1/n),
//   e         = x / (theta (1 + n))
// For the derivative by r the deviance gives `misfit`, and the saturated term -`fitted`, a sum of positive terms:
//   misfit    = theta (-log1p(-c) - c) >= 0,  c = (mu - x)/(theta + mu)
//   fitted    = theta (phi(1 + theta) - phi(1 + n) + e/n + (e - log1p(e))) >= 0
struct NegativeBinomial : CountTraits {
  static constexpr const char* kName = "negative_binomial";
  static constexpr int kParameters = 1, kFirst = 2;  // r = log theta; r within its bounds, and theta

  template <class Math, class T>
  PYVAE_HD static void prepare_first(T log_theta, T (&own)[2]) {
    own[0] = clamp_log_theta(log_theta), own[1] = Math::exp_moderate(own[0]);
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T a, T x, const T (&parameters)[1]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate<Math>(a, x, own);
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate_zero(T a, const T (&parameters)[1]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate_zero<Math>(a, own);
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate(T a, T x, const T (&own)[2]) {
    return evaluate_at<Math, false>(a, x, log_ratio(a, x), own);
  }

  // kMean: `given` is the mean itself, and the derivative is by the mean.
  template <class Math, bool kMean, class T>
  PYVAE_HD static Terms<T, 1> evaluate_at(T given, T x, LogRatio<T> ratio, const T (&own)[2]) {
    const T r = own[0], theta = own[1];
    const T n = theta + x;
    const T inverse_theta = Math::divide(T(1), theta), inverse_n = Math::divide(T(1), n);

    const bool swap = theta < x;
    const T m = swap ? theta : x, k = swap ? x : theta;
    // m e^s is the mean itself, or e^(r + s), whose exponent is kept in two parts. If it is clamped, 1 + w is w, and
    // the deviance grows by k for each unit of s.
    const T sum = r - ratio.delta, back = sum - r;
    const T rest = (r - (sum - back)) - (ratio.delta + back);  // the rounding error of `sum`
    const T exponent = swap ? sum : (kMean ? T(0) : given);
    const T cut = at_least(exponent - T(kLargest), T(0));
    const T power = Math::exp(at_most(exponent, T(kLargest)));
    const T by_power = swap && absolute(rest) < T(1) ? fma(power, rest, power) : power;
    const T moved = kMean && !swap ? given : by_power;
    const T near_s = swap ? -ratio.delta : ratio.delta, far_s = T(kLargest) - (swap ? r : ratio.log_x);
    const T s = cut > T(0) ? far_s : near_s;
    const Move<T> move = move_weight(m, s, moved);
    const T w = move.difference * inverse_n;
    const Log1p<T> log_w = log1p(w);
    const T deviance = absolute(w) <= T(0.25) ? fma(-n, log_w.defect, move.excess) : fma(n, log_w.value, -move.linear);

    const T y_theta = Math::divide(T(1), T(1) + theta), y_n = Math::divide(T(1), T(1) + n);
    const T x_y = x * y_theta, x_n = x * y_n, step = x_y * y_n;  // y_theta - y_n
    const StirlingSlopes<T> slopes = stirling_slopes(y_theta, y_n);
    const T e = x_n * inverse_theta;
    const Log1p<T> log_e = log1p(e);
    const T logarithms = fma(T(1) + theta, log_e.value, -(x * log1p(inverse_n).value));
    const T saturated_theta = fma(step, slopes.remainder, fma(T(0.5), log1p(x_y).value, logarithms));

    const T share = Math::divide(k, moved + k) * move.difference;
    const T derivative = swap ? -share : share;
    // Theta is multiplied into each product before factors that may be too small for T alone: theta c is the derivative
    // by a.
    const T c = derivative * inverse_theta;
    const T log_rest = log_w.value + (swap ? -s : cut);  // -log1p(-c) = log((theta + mu) / n)
    const T misfit = absolute(c) <= T(0.25) ? -derivative * defect_ratio(-c) : fma(theta, log_rest, -derivative);
    const T defect = e <= T(0.25) ? x_n * defect_ratio(e) : fma(-theta, log_e.value, x_n);
    const T fitted = fma(x_n * (theta * y_theta), slopes.phi, fma(x_n, inverse_n, defect));
    const T refused = refusal(x);
    // By the mean: theta (mu - x) / ((theta + mu) mu)
    const T by_mean = Math::divide(given - x, given) * Math::divide(theta, theta + given);
    return {(deviance + cut * k) + (saturated<Math>(x, ratio.log_x) + saturated_theta) + refused,
            (kMean ? by_mean : derivative) + refused,
            {(misfit - fitted) + refused}};
  }

  // x = 0. With t = a - r, p = theta / (mu + theta), q = min(mu, theta) / (mu + theta), l = -log(1 - q) - q, e = l / q,
  // and w = mu p, or for t > 0 theta q:
  //   t <= 0: value w (1 + e);            by a w;              by r w e
  //   t > 0:  value theta t + w (1 + e);  by a theta (1 - q);  by r theta (t - (1 - 2 q)) + w e
  template <class T>
  struct Zero {
    Terms<T, 1> terms;
    T r, t, q, e;
    bool above;  // t > 0
  };

  template <class Math, class T>
  PYVAE_HD static Terms<T, 1> evaluate_zero(T a, const T (&own)[2]) {
    return zero_of<Math, false>(a, own[0], own[1]).terms;
  }

  // kMean: as above. By the mean: theta / (theta + mu).
  template <class Math, bool kMean, class T>
  PYVAE_HD static Zero<T> zero_of(T given, T r, T theta) {
    const T mu = kMean ? given : Math::exp(given);
    const T inverse = Math::divide(T(1), mu + theta);
    const bool above = mu > theta;
    T t;
    if constexpr (kMean) {
      t = Math::kBranches && !above ? T(0) : -log_ratio(r, given).delta;
    } else {
      t = given - r;
    }
    const T smaller = above ? theta : mu, q = smaller * inverse, w = smaller * (theta * inverse);
    const T e = q * log1m_excess_polynomial(q), excess = w * e;
    const T rise = above ? at_least(t, T(0)) : T(0), slope = above ? rise - fma(T(-2), q, T(1)) : T(0);
    const T other = T(1) - q, by_log = above ? theta * other : w, by_mean = above ? q : other;
    return {{fma(theta, rise, w + excess), kMean ? by_mean : by_log, {fma(theta, slope, excess)}}, r, t, q, e, above};
  }

  // c + the value at x = 0, to a fraction of the value's last bit: for e^-(c + value), whose relative error is the
  // absolute error of the sum. With mu, or for t > 0 theta, = 2^k (1 + f):
  //   t <= 0: value 2^k (1 + f) (1 + (1 - q) e - q);  t > 0: value 2^k (1 + f) (t + q + q e)
  // 2^k and 2^k t are exact, the rest is small beside them, and the rounding error of c + 2^k is kept (Knuth).
  template <bool kMean, class T>
  PYVAE_HD static T add_to_value(T c, T given, const Zero<T>& z) {
    Exponent<T> power = reduce_exponent(at_least(z.above || kMean ? z.r : given, T(-80)));
    T lost = (given - z.t) - z.r;  // rounding error of a - r
    if constexpr (kMean) {
      constexpr T rounder = Real<T>::kRounder + Real<T>::kBias - 1;
      const Binary<T> mean = split_binary(at_least(given, T(1e-36)));
      lost = T(0);
      power.half = z.above ? power.half : power_of_two(mean.k + rounder);
      power.r = z.above ? power.r : mean.f, power.q = z.above ? power.q : T(0);
    }
    const T rest = z.above ? (absolute(lost) < T(1) ? lost : T(0)) + fma(z.q, z.e, z.q) : fma(T(1) - z.q, z.e, -z.q);
    const T whole = z.above ? at_most(z.t, T(1e9)) : T(1), f = power.r + power.q;
    const T twice = T(2) * power.half, most = twice * whole;
    const T sum = c + most, added = sum - c;
    const T rounded = (c - (sum - added)) + (most - added);
    return sum + fma(twice, fma(f, whole + rest, rest), rounded == rounded ? rounded : T(0));  // NaN: c is infinite
  }

  // log theta is clamped to +-80: there theta and 1/theta are normal floats. Above, the distribution is Poisson's
  // unless the mean is near e^80. The mean itself may be up to e^87, whose reciprocal is a normal number.
  static constexpr int kLargestLogTheta = 80, kLargest = 87;
  template <class T>
  PYVAE_HD static T clamp_log_theta(T r) {
    return at_least(at_most(r, T(kLargestLogTheta)), T(-kLargestLogTheta));
  }
};

template <class T>
struct Sigmoid {
  T value, complement;   // sigmoid(x), sigmoid(-x)
  T larger, smaller, u;  // the larger and smaller of the two; smaller / larger = e^-|x|
};

template <class Math, class T>
PYVAE_HD Sigmoid<T> sigmoid(T x) {
  const T u = Math::exp_negative(-absolute(x));
  const T larger = Math::divide(T(1), T(1) + u), smaller = u * larger;
  const bool positive = x > T(0);
  return {positive ? larger : smaller, positive ? smaller : larger, larger, smaller, u};
}

// NegativeBinomial, or 0 with probability sigmoid(rho). With the negative binomial's value n:
//   x > 0: value  n + max(rho, 0) - log sigmoid(|rho|);  by n 1;  by rho sigmoid(rho)
//   x = 0: value  -log(sigmoid(rho) + sigmoid(-rho) e^-n) = -log(1 - y),  y = sigmoid(-rho) (1 - e^-n)
//          by n   sigmoid(-(rho + n));  by rho -sigmoid(rho + n) y
//          or max(rho, 0) - max(rho, -n) - log(sigmoid(|rho|) / sigmoid(|rho + n|)), where 1 - y might cancel
struct ZeroInflatedNegativeBinomial : CountTraits {
  static constexpr const char* kName = "zero_inflated_negative_binomial";
  static constexpr int kParameters = 2, kFirst = 2;  // log theta, rho = zi_logits

  template <class Math, class T>
  PYVAE_HD static void prepare_first(T log_theta, T (&own)[2]) {
    NegativeBinomial::prepare_first<Math>(log_theta, own);
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate(T a, T x, const T (&parameters)[2]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate<Math>(a, x, {own[0], own[1], parameters[1]});
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate_zero(T a, const T (&parameters)[2]) {
    T own[2];
    prepare_first<Math>(parameters[0], own);
    return evaluate_zero<Math>(a, {own[0], own[1], parameters[1]});
  }

  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate(T a, T x, const T (&own)[3]) {
    return evaluate_at<Math, false>(a, x, log_ratio(a, x), own);
  }
  template <class Math, class T>
  PYVAE_HD static Terms<T, 2> evaluate_zero(T a, const T (&own)[3]) {
    return evaluate_zero_at<Math, false>(a, own);
  }

  // kMean: as in NegativeBinomial.
  template <class Math, bool kMean, class T>
  PYVAE_HD static Terms<T, 2> evaluate_at(T given, T x, LogRatio<T> ratio, const T (&own)[3]) {
    const T rho = own[2];
    const Terms<T, 1> base = NegativeBinomial::evaluate_at<Math, kMean>(given, x, ratio, {own[0], own[1]});
    const Sigmoid<T> inflated = sigmoid<Math>(rho);
    const T value = base.value + at_least(rho, T(0)) - log1p(-inflated.smaller, inflated.larger).value;
    return {value, base.derivative, {base.parameters[0], inflated.value + refusal(x)}};
  }

  template <class Math, bool kMean, class T>
  PYVAE_HD static Terms<T, 2> evaluate_zero_at(T given, const T (&own)[3]) {
    const T rho = own[2];
    const auto zero = NegativeBinomial::zero_of<Math, kMean>(given, own[0], own[1]);
    const Terms<T, 1>& base = zero.terms;
    const T n = base.value;
    const Sigmoid<T> inflated = sigmoid<Math>(rho);
    if (Math::kBranches && n < T(8)) {  // mostly true; e^-n is accurate enough, so 1 - y loses nothing
      const T kept = Math::exp_negative(-n), rest = inflated.complement;
      const T gone = n <= T(0.34) ? fma(-n * n, exp_excess_polynomial(-n), n) : T(1) - kept;
      const T y = rest * gone, left = fma(rest, kept, inflated.value);  // 1 - y
      const T inverse = Math::divide(T(1), left), share = rest * kept * inverse;
      const T value = y <= T(0.5) ? fma(y * y, log1m_excess_polynomial(y), y) : -Math::log(left);
      return {value, share * base.derivative, {share * base.parameters[0], -(inflated.value * inverse * y)}};
    }
    const Sigmoid<T> joint = sigmoid<Math>(NegativeBinomial::add_to_value<kMean>(rho, given, zero));
    const T y = inflated.complement * -expm1(-n);
    const bool near = y <= T(0.25);
    const T ratio = (T(1) + joint.u) * inflated.larger;
    const T start = near ? T(0) : at_least(rho, T(0)) - at_least(-n, rho);
    const T value = start - log1p(near ? -y : ratio - T(1), near ? T(1) : ratio).value;
    const T share = joint.complement;
    return {value, share * base.derivative, {share * base.parameters[0], -(joint.value * y)}};
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
