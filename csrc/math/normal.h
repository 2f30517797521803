// Standard normal draws from Philox words by the transform of Box and Muller (1958):
//   n0 = sqrt(-2 ln u) cos(2 pi v),  n1 = sqrt(-2 ln u) sin(2 pi v),  u uniform in (0, 1], v in [0, 1).
//
// One call of Philox makes a group: four floats (for 16- and 32-bit types) or two doubles.
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace pyvae {
inline namespace PYVAE_ISA {

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

// The group's normals from its words: each word's low 32 bits.
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
