// exp, expm1, log and log1p, branch-free, in float and double.
//
// One algorithm serves both types; only the polynomials differ (minimax fits, printed by minimax.py). The errors that
// tests/test_elementary.py measures are 1 to 2.5 ulp, and up to 10 for e^x - 1 - x just beyond |x| = ln(2)/2.
// Infinities, NaN, zeros and denormals come out as in <cmath>.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- the layout of the two types ------------------------------------------------------------------------------------

template <class T>
struct Real;

template <>
struct Real<float> {
  using Bits = uint32_t;
  using Int = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Int kBias = 127;
  static constexpr float kRounder = 0x1.8p23f;  // x + kRounder has the integer nearest to x in its low bits
  static constexpr float kLog2e = 0x1.715476p0f;
  static constexpr float kLn2Hi = 0x1.62e4p-1f;  // 15 bits: n * kLn2Hi is exact
  static constexpr float kLn2Lo = 0x1.7f7d1cp-20f;
  static constexpr float kHalfPiHi = 0x1.921fb6p0f;
  static constexpr float kHalfPiLo = -0x1.777a5cp-25f;
  static constexpr float kExpMin = -104.0f;   // exp is 0 below
  static constexpr float kExpMax = 89.0f;     // and inf above
  static constexpr float kExpm1Min = -40.0f;  // expm1 is -1 below
  static constexpr float kFactoredMax = 350.0f;
  static constexpr Int kLift = 64;
  static constexpr float kDrop = 0x1p-64f;
  static constexpr float kMinNormal = 0x1p-126f;
  static constexpr float kInfinity = __builtin_inff();
};

template <>
struct Real<double> {
  using Bits = uint64_t;
  using Int = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Int kBias = 1023;
  static constexpr double kRounder = 0x1.8p52;
  static constexpr double kLog2e = 0x1.71547652b82fep0;
  static constexpr double kLn2Hi = 0x1.62e42feep-1;  // 32 bits
  static constexpr double kLn2Lo = 0x1.a39ef35793c76p-33;
  static constexpr double kHalfPiHi = 0x1.921fb54442d18p0;
  static constexpr double kHalfPiLo = 0x1.1a62633145c07p-54;
  static constexpr double kExpMin = -746.0;
  static constexpr double kExpMax = 710.0;
  static constexpr double kExpm1Min = -80.0;
  static constexpr double kFactoredMax = 2800.0;
  static constexpr Int kLift = 512;
  static constexpr double kDrop = 0x1p-512;
  static constexpr double kMinNormal = 0x1p-1022;
  static constexpr double kInfinity = __builtin_inf();
};

// ---- polynomials ----------------------------------------------------------------------------------------------------

// e^r for |r| <= ln(2)/2
PYVAE_HD float exp_polynomial(float r) {
  return polynomial(r, 1.0f, 1.0f, 0.4999999955f, 0.1666657728f, 0.04166685344f, 0.008363146356f, 0.001390128605f);
}
PYVAE_HD double exp_polynomial(double r) {
  return polynomial(r, 1.0, 1.0, 0.50000000000000010154, 0.16666666666666643932, 0.041666666666624308105,
                    0.0083333333333561974022, 0.0013888888917138636797, 0.00019841269784672599477,
                    0.000024801521396002008923, 2.7557355501514206167e-6, 2.7620046790455430222e-7,
                    2.50681705430497581e-8);
}

// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2: two terms longer, as its error counts relative to it, not to e^r
PYVAE_HD float exp_excess_polynomial(float r) {
  return polynomial(r, 0.5000000013f, 0.1666666653f, 0.04166646545f, 0.008333360729f, 0.001393360651f,
                    0.0001985780110f);
}
PYVAE_HD double exp_excess_polynomial(double r) {
  return polynomial(r, 0.5, 0.16666666666666666671, 0.041666666666666676725, 0.0083333333333333257880,
                    0.0013888888888879106263, 0.00019841269841301641521, 0.000024801587336367059327,
                    2.7557319174225304121e-6, 2.7557263350588228381e-7, 2.5052131880706589389e-8,
                    2.0918113936436331514e-9, 1.6068222143024984876e-10);
}

// (log(1 + f) - f + f^2/2) / f^3 for sqrt(1/2) - 1 <= f <= sqrt(2) - 1
PYVAE_HD float log_polynomial(float f) {
  return polynomial(f, 0.3333333169f, -0.2500082099f, 0.2000122777f, -0.1662335915f, 0.1420174136f, -0.1316015303f,
                    0.1276167034f, -0.07634673701f);
}
PYVAE_HD double log_polynomial(double f) {
  return polynomial(f, 0.33333333333333143669, -0.24999999999987976094, 0.20000000000066616113, -0.16666666669825838105,
                    0.14285714280092861957, -0.12499999691446956218, 0.11111111147477943449, -0.10000015206101559643,
                    0.090909239315300510794, -0.083329135436750857837, 0.076915298253877108025,
                    -0.071494394860011474708, 0.066845890523665347152, -0.061966784765715815062,
                    0.056683779334960670855, -0.056777846035070977302, 0.065034910660565423601,
                    -0.059817016352003292783, 0.026150922143760845508);
}

// (log(1 + u) - u) / u^2 for 0 <= u <= 1
PYVAE_HD float log1p_excess_polynomial(float u) {
  return polynomial(u, -0.4999964797f, 0.3332132261f, -0.2485716305f, 0.1915365127f, -0.1375379299f, 0.07920441487f,
                    -0.03006571475f, 0.005364804588f);
}
PYVAE_HD double log1p_excess_polynomial(double u) {
  return polynomial(u, -0.49999999999999459724, 0.33333333333235047206, -0.24999999993676708859, 0.19999999791325592368,
                    -0.16666662498529683861, 0.14285658897281487822, -0.12499479611439287486, 0.11107505980156901221,
                    -0.099810148340930081210, 0.090131533620229680677, -0.080812109717064013254,
                    0.070355419243832894158, -0.057502028675260729917, 0.042300148944899679242,
                    -0.026744003020809253298, 0.013838619651154413783, -0.0055431242768657464272,
                    0.0015957464639491423563, -0.00029176237189433922514, 0.000025330055164782217405);
}

// log(1 + u) / u
template <class T>
PYVAE_HD T log1p_polynomial(T u) {
  return fma(log1p_excess_polynomial(u), u, T(1));
}

// ---- exp ------------------------------------------------------------------------------------------------------------

// 2^n from n + kRounder + kBias: the low bits of that sum are the power's exponent field.
template <class T>
PYVAE_HD T power_of_two(T rounded) {
  using Bits = typename Real<T>::Bits;
  return bit_cast<T>(Bits(bit_cast<Bits>(rounded) << Real<T>::kMantissaBits));
}

// e^x = p 2^n with n = round(x / ln 2). 2^n alone may be 0 or inf while the product is not, so it is lifted into range:
// p 2^(n + lift) 2^-lift. `rounder` is kRounder + kBias + lift.
template <class T>
PYVAE_HD T exp_lifted(T x, T rounder, T drop) {
  using R = Real<T>;
  const T rounded = fma(x, R::kLog2e, rounder);
  const T n = rounded - rounder;
  const T r = fma(n, -R::kLn2Lo, fma(n, -R::kLn2Hi, x));
  return exp_polynomial(r) * power_of_two(rounded) * drop;
}

template <class T>
PYVAE_HD T exp(T x) {
  using R = Real<T>;
  const bool negative = x < T(0);
  return exp_lifted(at_least(at_most(x, R::kExpMax), R::kExpMin),
                    negative ? R::kRounder + R::kBias + R::kLift : R::kRounder + R::kBias - R::kLift,
                    negative ? R::kDrop : T(1) / R::kDrop);
}

// e^x for |x| <= 80: the same bits, without range checks.
template <class T>
PYVAE_HD T exp_moderate(T x) {
  return exp_lifted(x, Real<T>::kRounder + Real<T>::kBias, T(1));
}

// e^x for x <= 0
template <class T>
PYVAE_HD T exp_negative(T x) {
  using R = Real<T>;
  return exp_lifted(at_least(x, R::kExpMin), R::kRounder + R::kBias + R::kLift, R::kDrop);
}

// e^x = part step^4: for products in which e^x alone would be infinite or 0.
template <class T>
struct Factored {
  T part, step;  // part in [1/6, 6], step a power of two

  // 0 if x is 0. No partial product overflows or underflows before the whole product does.
  PYVAE_HD T times(T x) const { return x * step * step * part * step * step; }
};

// e^-x. Beyond +-kFactoredMax, where x is clamped, the product with any number, even its square, is 0 or infinite.
template <class T>
PYVAE_HD Factored<T> exp_minus_factored(T minus_x) {
  using R = Real<T>;
  constexpr T rounder = R::kRounder + R::kBias;
  const T x = -at_least(at_most(minus_x, R::kFactoredMax), -R::kFactoredMax);
  const T n = fma(x, R::kLog2e, R::kRounder) - R::kRounder;
  const T r = fma(n, -R::kLn2Lo, fma(n, -R::kLn2Hi, x));
  const T quarter = fma(n, T(0.25), rounder), rest = fma(T(-4), quarter - rounder, n) + rounder;
  return {exp_polynomial(r) * power_of_two(rest), power_of_two(quarter)};
}

// e^x - 1 and e^x - 1 - x start from x = n ln(2) + r with |r| <= ln(2)/2: e^x = 2^n (1 + r + q).
template <class T>
struct Exponent {
  T half;  // 2^(n - 1): half of every result is finite, 2^n itself may not be
  T n, r, q;
};

template <class T>
PYVAE_HD Exponent<T> reduce_exponent(T x) {
  using R = Real<T>;
  constexpr T rounder = R::kRounder + R::kBias - 1;
  const T rounded = fma(x, R::kLog2e, rounder);
  const T n = rounded - rounder;
  const T r = fma(n, -R::kLn2Lo, fma(n, -R::kLn2Hi, x));
  return {power_of_two(rounded), n, r, (r * r) * exp_excess_polynomial(r)};
}

// e^x - 1 = 2^n (r + q) + (2^n - 1), exact near 0
template <class T>
PYVAE_HD T expm1(T x) {
  const Exponent<T> e = reduce_exponent(at_least(at_most(x, Real<T>::kExpMax), Real<T>::kExpm1Min));
  return e.n == T(0) ? e.r + e.q : T(2) * fma(e.half, e.r + e.q, e.half - T(0.5));
}

// e^x - 1 - x >= 0, exact near 0: there it is x^2/2, and expm1(x) - x would cancel.
template <bool kModerate = false, class T>
PYVAE_HD T exp_excess(T x) {                         // kModerate: |x| <= 80
  if (!kModerate) x = at_most(x, Real<T>::kExpMax);  // also so that inf gives inf
  const Exponent<T> e = reduce_exponent(kModerate ? x : at_least(x, Real<T>::kExpm1Min));
  return e.n == T(0) ? e.q : T(2) * fma(e.half, e.r + e.q, (e.half - T(0.5)) - T(0.5) * x);
}

// ---- log ------------------------------------------------------------------------------------------------------------

// Normal, finite x > 0 as 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2)
template <class T>
struct Binary {
  T k, f;
};

template <class T>
PYVAE_HD Binary<T> split_binary(T x) {
  using R = Real<T>;
  using Bits = typename R::Bits;
  // Relative to sqrt(1/2), the exponent field steps exactly where 1 + f must wrap around.
  constexpr T kSqrtHalf = T(0.70710678118654752440);
  constexpr Bits kMantissa = (Bits(1) << R::kMantissaBits) - 1;
  const Bits offset = bit_cast<Bits>(x) - bit_cast<Bits>(kSqrtHalf);
  const T f = bit_cast<T>(Bits(bit_cast<Bits>(x) - (offset & ~kMantissa))) - T(1);
  if constexpr (sizeof(T) == sizeof(float)) {
    return {T(typename R::Int(offset) >> R::kMantissaBits), f};
  } else {  // AVX2 has no signed shift or conversion of 64-bit integers: exp_lifted's method in reverse
    constexpr Bits kLift = R::kBias + 1;
    const Bits exponent = (offset + (kLift << R::kMantissaBits)) >> R::kMantissaBits;
    return {bit_cast<T>(bit_cast<Bits>(R::kRounder) + exponent) - (R::kRounder + T(kLift)), f};
  }
}

// log(1 + f) - f for these f
template <class T>
PYVAE_HD T log_tail(T f) {
  const T square = f * f;
  return fma(square * f, log_polynomial(f), T(-0.5) * square);
}

// log x for normal, finite x > 0; `lift` is added to k.
template <class T>
PYVAE_HD T log_normal(T x, T lift = T(0)) {
  using R = Real<T>;
  const Binary<T> binary = split_binary(x);
  const T k = binary.k + lift;
  return fma(k, R::kLn2Hi, binary.f + fma(k, R::kLn2Lo, log_tail(binary.f)));
}

template <class T>
PYVAE_HD T log(T x) {
  using R = Real<T>;
  const bool denormal = x < R::kMinNormal;
  constexpr T kLift = T(R::kMantissaBits + 1);
  const T scaled = denormal ? x * T(typename R::Bits(1) << (R::kMantissaBits + 1)) : x;
  const T finite = log_normal(scaled, denormal ? -kLift : T(0));
  const T positive = x < R::kInfinity ? finite : x;  // inf
  return x > T(0) ? positive : (x == T(0) ? -R::kInfinity : T(__builtin_nan("")));
}

// log(1 + u) for 0 <= u <= 1.
template <class T>
PYVAE_HD T log1p_unit(T u) {
  return u * log1p_polynomial(u);
}

// log(1 - p) for 0 <= p <= 1, with Math's log_unit. 1 - p loses `lost` by rounding (only if p < 1/2). First order in
// `lost` suffices, and 1 + p is close enough to 1/(1 - p) there, since `lost` is below the last bit of 1 - p.
template <class Math, class T>
PYVAE_HD T log1m_unit(T p) {
  const T rest = T(1) - p;
  const T lost = (T(1) - rest) - p;
  return fma(lost, T(1) + p, Math::log_unit(rest));
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
