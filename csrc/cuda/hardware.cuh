// The objective's arithmetic on the device: policies for the likelihoods (math/likelihood.h), instead of Exact.
//
// Approximate hardware instructions and their errors, as the PTX manual gives them: rcp.approx one unit in the last
// place, ex2.approx 2^-22, lg2.approx 2^-22 of the result or, from 1/2 to 2, of 1. All take and give 0 for what is
// below normal size, as `ftz` says. On the host, where tests run these functions too, exact ones stand for them.
#pragma once

#include "math/exact.h"

namespace pyvae {
namespace cuda {

PYVAE_HD float flushed(float x) { return absolute(x) < Real<float>::kMinNormal ? 0.0f * x : x; }

PYVAE_HD float approximate_reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return flushed(1.0f / flushed(x));
#endif
}

PYVAE_HD float approximate_exp2(float x) {
#ifdef __CUDA_ARCH__
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return __builtin_exp2f(x);
#endif
}

PYVAE_HD float approximate_log2(float x) {
#ifdef __CUDA_ARCH__
  float out;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return __builtin_log2f(flushed(x));
#endif
}

// For 32-bit results: exact functions, and a quotient that is off by one unit in the last place at most: for
// denominators of normal size, as those of the likelihoods are.
struct Accurate : Exact {
  // Lifted, no number is denormal; and that of 0 is below the -100 at which the likelihood cuts it off. What is not in
  // [0, 1], NaN too, the caller sees to.
  template <class T>
  PYVAE_HD static T log_unit(T p) {
    constexpr int kLift = Real<T>::kMantissaBits + 1;
    return log_normal(fma(p, T(typename Real<T>::Bits(1) << kLift), T(0)), T(-kLift));  // + 0: -0 is 0
  }
  PYVAE_HD static float divide(float a, float b) {
    const float reciprocal = approximate_reciprocal(b), quotient = a * reciprocal;
    const float corrected = fma(fma(-b, quotient, a), reciprocal, quotient);
    return corrected == corrected ? corrected : quotient;  // inf - inf, where the quotient is inf
  }
  PYVAE_HD static double divide(double a, double b) { return a / b; }

  // -x / ln 2 = n + f, n a multiple of 4: the hardware's 2^f is the part, and 2^(n/4) the step. `rounder`, added to n,
  // has n/4 and the bias of an exponent in its low bits.
  PYVAE_HD static Factored<float> exp_minus_factored(float x) {
    using R = Real<float>;
    constexpr float kLog2eLo = 0x1.4ae0c0p-26f, rounder = 4 * (R::kRounder + R::kBias);
    x = at_least(at_most(x, R::kFactoredMax), -R::kFactoredMax);
    const float rounded = fma(x, -R::kLog2e, rounder), minus_n = rounder - rounded;
    const float f = fma(x, -kLog2eLo, fma(x, -R::kLog2e, minus_n));
    return {approximate_exp2(f), power_of_two(rounded)};
  }
  PYVAE_HD static Factored<double> exp_minus_factored(double x) { return pyvae::exp_minus_factored(x); }
};

// For results that are rounded to 16 bits. The exponential is still good for the loss, which is summed in float32: its
// argument is reduced as in exp_lifted, in units of log 2, and only its polynomial is the hardware's.
struct Approximate : Accurate {
  PYVAE_HD static float divide(float a, float b) { return a * approximate_reciprocal(b); }

  PYVAE_HD static float exp_negative(float x) {
    using R = Real<float>;
    constexpr float kRounder = R::kRounder + R::kBias + R::kLift;
    constexpr float kLog2eLo = 0x1.4ae0c0p-26f;  // log2(e) - kLog2e
    x = at_least(x, R::kExpMin);
    const float rounded = fma(x, R::kLog2e, kRounder), n = rounded - kRounder;
    const float rest = fma(x, kLog2eLo, fma(x, R::kLog2e, -n));
    const float power = bit_cast<float>(bit_cast<uint32_t>(rounded) << R::kMantissaBits);
    return approximate_exp2(rest) * power * R::kDrop;
  }
};

// For counts and a softmax, whose bounds are wider: the hardware's 2^y for the whole of y = x log2(e), and what y has
// lost by rounding is put back to first order; and the hardware's reciprocal.
struct Counting : Accurate {
  static constexpr bool kBranches = true;

  PYVAE_HD static float exp(float x) {
    const bool negative = x < 0;
    return exp_lifted(x, negative ? kLift : 0.0f, negative ? kDrop : 1.0f);
  }
  PYVAE_HD static float exp_negative(float x) { return exp_lifted(x, kLift, kDrop); }
  PYVAE_HD static float exp_moderate(float x) { return exp_lifted(x, 0.0f, 1.0f); }
  // Of a rounded difference of scores, which is off by |x| units in the last place of 1 by itself.
  PYVAE_HD static float exp_score(float x) { return approximate_exp2(x * Real<float>::kLog2e); }

  PYVAE_HD static float log(float x) { return approximate_log2(x) * 0x1.62e430p-1f; }  // far from 1

  PYVAE_HD static double exp(double x) { return pyvae::exp(x); }
  PYVAE_HD static double log(double x) { return pyvae::log(x); }
  PYVAE_HD static double exp_negative(double x) { return pyvae::exp_negative(x); }
  PYVAE_HD static double exp_moderate(double x) { return pyvae::exp_moderate(x); }
  PYVAE_HD static double exp_score(double x) { return pyvae::exp_negative(x); }

  PYVAE_HD static float divide(float a, float b) { return a * approximate_reciprocal(b); }
  PYVAE_HD static double divide(double a, double b) { return a / b; }

 private:
  // As in elementary.h: 2^(y + lift) is of normal size where 2^y is below it, and would be taken for 0.
  static constexpr float kLift = Real<float>::kLift, kDrop = Real<float>::kDrop;
  PYVAE_HD static float exp_lifted(float x, float lift, float drop) {
    constexpr float kLog2eLo = 0x1.4ae0c0p-26f, kLn2 = 0x1.62e430p-1f;
    const float lifted = fma(x, Real<float>::kLog2e, lift), y = lifted - lift;
    const float lost = fma(x, kLog2eLo, fma(x, Real<float>::kLog2e, -y));
    // Of an infinite x, `lost` is NaN, of which the minimum is the other number.
    return approximate_exp2(lifted) * fma(__builtin_fminf(lost, 1.0f), kLn2 * drop, drop);
  }
};

}  // namespace cuda
}  // namespace pyvae
