// Standard normal draws from Philox words by the transform of Box and Muller (1958):
//   n0 = sqrt(-2 ln u) cos(2 pi v),  n1 = sqrt(-2 ln u) sin(2 pi v),  u uniform in (0, 1], v in [0, 1).
//
// One call of Philox gives a group: four floats (for 16- and 32-bit dtypes) or two doubles.
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// (sin(pi/2 t)/t - pi/2) / t^2 and (cos(pi/2 t) - 1) / t^2 in s = t^2, for |t| <= 1/2
PYVAE_HD float sin_polynomial(float s) { return polynomial(s, -0.6459636302f, 0.07968141279f, -0.004604834139f); }
PYVAE_HD double sin_polynomial(double s) {
  return polynomial(s, -0.64596409750624486081, 0.079692626246059797486, -0.0046817541325626036425,
                    0.00016044115216855245987, -3.5986477760300879894e-6, 5.6344631724059411253e-8);
}
PYVAE_HD float cos_polynomial(float s) {
  return polynomial(s, -1.233700543f, 0.2536692260f, -0.02086016511f, 0.0009037665394f);
}
PYVAE_HD double cos_polynomial(double s) {
  return polynomial(s, -1.2337005501361698153, 0.25366950790104681540, -0.020863480763312569203,
                    0.00091926027419106953237, -0.000025202036788303487515, 4.7106096697577188260e-7,
                    -6.3212021141251710864e-9);
}

template <class T>
struct SinCos {
  T sin, cos;
};

// sin and cos of t + quadrant quarter turns, for |t| <= 1/2. Only the last two bits of the quadrant matter. pi/2 stays
// in two parts inside the polynomial: scaling the angle first would add two more roundings.
template <class T>
PYVAE_HD SinCos<T> sincos_quadrant(T t, typename Real<T>::Bits quadrant) {
  using R = Real<T>;
  using Bits = typename R::Bits;
  const T s = t * t;
  const T sin = fma(t, R::kHalfPiHi, t * fma(s, sin_polynomial(s), R::kHalfPiLo));
  const T cos = fma(s, cos_polynomial(s), T(1));
  const bool swap = quadrant & 1;
  constexpr int kSign = int(sizeof(T)) * 8 - 1;
  const Bits sin_sign = (quadrant >> 1) << kSign;
  const Bits cos_sign = ((quadrant + 1) >> 1) << kSign;
  return {bit_cast<T>(Bits(bit_cast<Bits>(swap ? cos : sin) ^ sin_sign)),
          bit_cast<T>(Bits(bit_cast<Bits>(swap ? sin : cos) ^ cos_sign))};
}

template <class T>
constexpr int kGroup = sizeof(T) == sizeof(float) ? 4 : 2;

// u = (word + 1/2) / 2^32, rounded: all 32 bits count near 0, so the tails reach 6.7 sigma; never 0.
// v = word / 2^32, exactly: its nearest quarter turn is taken off in integers.
PYVAE_HD SinCos<float> box_muller(uint32_t radius_word, uint32_t angle_word) {
  const float u = fma(float(radius_word), 0x1p-32f, 0x1p-33f);
  const float radius = sqrt(-2.0f * log_normal(u));
  const uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
  const float turn = float(int32_t(angle_word - (quadrant << 30)));
  const SinCos<float> direction = sincos_quadrant(turn * 0x1p-30f, quadrant);
  return {radius * direction.sin, radius * direction.cos};
}

// The same from 53-bit uniforms: u = (bits + 1) / 2^53, v = bits / 2^53.
PYVAE_HD SinCos<double> box_muller(uint64_t radius_word, uint64_t angle_word) {
  const double u = double(int64_t(radius_word >> 11) + 1) * 0x1p-53;
  const double radius = sqrt(-2.0 * log_normal(u));
  const uint64_t bits = angle_word >> 11;
  const uint64_t quadrant = (bits + (uint64_t(1) << 50)) >> 51;
  const double turn = double(int64_t(bits - (quadrant << 51)));
  const SinCos<double> direction = sincos_quadrant(turn * 0x1p-51, quadrant);
  return {radius * direction.sin, radius * direction.cos};
}

// The group's normals from its words, of which only the low 32 bits are used.
PYVAE_HD void normals_of(Words<uint32_t> w, float* out) {  // [4]
  const SinCos<float> a = box_muller(w.w0, w.w1), b = box_muller(w.w2, w.w3);
  out[0] = a.cos, out[1] = a.sin, out[2] = b.cos, out[3] = b.sin;
}

PYVAE_HD void normals_of(Words<uint32_t> w, double* out) {  // [2]
  const SinCos<double> a = box_muller(w.w0 | uint64_t(w.w1) << 32, w.w2 | uint64_t(w.w3) << 32);
  out[0] = a.cos, out[1] = a.sin;
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
