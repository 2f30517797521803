// Standard normal draws from Philox words by the transform of Box and Muller (1958):
//   n0 = sqrt(-2 ln u) cos(2 pi v),  n1 = sqrt(-2 ln u) sin(2 pi v),  u uniform in (0, 1], v in [0, 1).
//
// Counter = (offset, group). One call makes a group: four floats (16- and 32-bit types) or two doubles.
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// The stream of one call: its seed is the key, its offset the low half of the counter.
struct Stream {
  uint64_t seed, offset;
};

template <class T>
struct NormalGroup;

template <>
struct NormalGroup<float> {
  static constexpr int kSize = 4;
  float n[kSize];
};

template <>
struct NormalGroup<double> {
  static constexpr int kSize = 2;
  double n[kSize];
};

// u = (word + 1/2) / 2^32, rounded: all 32 bits count near 0, so the tails reach 6.7 sigma; never 0.
// v = word / 2^32, exactly: its nearest quarter turn is taken off in integers.
PYVAE_HD SinCos<float> box_muller(uint32_t radius_word, uint32_t angle_word) {
  const float u = fma(float(radius_word), 0x1p-32f, 0x1p-33f);
  const float radius = sqrt(-2.0f * log(u));
  const uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
  const float turn = float(int32_t(angle_word - (quadrant << 30)));
  const SinCos<float> direction = sincos_quadrant(turn * 0x1.921fb6p-30f, quadrant);  // 2 pi / 2^32
  return {radius * direction.sin, radius * direction.cos};
}

// The same from 53-bit uniforms: u = (bits + 1) / 2^53, v = bits / 2^53.
PYVAE_HD SinCos<double> box_muller(uint64_t radius_word, uint64_t angle_word) {
  const double u = double(int64_t(radius_word >> 11) + 1) * 0x1p-53;
  const double radius = sqrt(-2.0 * log(u));
  const uint64_t bits = angle_word >> 11;
  const uint64_t quadrant = (bits + (uint64_t(1) << 50)) >> 51;
  const double turn = double(int64_t(bits - (quadrant << 51)));
  const SinCos<double> direction = sincos_quadrant(turn * 0x1.921fb54442d18p-51, quadrant);  // 2 pi / 2^53
  return {radius * direction.sin, radius * direction.cos};
}

template <class T>
PYVAE_HD NormalGroup<T> normal_group(Stream stream, uint64_t group);

template <>
PYVAE_HD NormalGroup<float> normal_group<float>(Stream stream, uint64_t group) {
  const Words w = philox(stream.seed, stream.offset, group);
  const SinCos<float> first = box_muller(w.w0, w.w1), second = box_muller(w.w2, w.w3);
  return {{first.cos, first.sin, second.cos, second.sin}};
}

template <>
PYVAE_HD NormalGroup<double> normal_group<double>(Stream stream, uint64_t group) {
  const Words w = philox(stream.seed, stream.offset, group);
  const SinCos<double> pair = box_muller(w.w0 | uint64_t(w.w1) << 32, w.w2 | uint64_t(w.w3) << 32);
  return {{pair.cos, pair.sin}};
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
