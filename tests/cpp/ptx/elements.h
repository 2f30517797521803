// What elements.cu and elements.cpp both say.
#pragma once

#include <cstdint>

#include "math/gaussian.h"
#include "math/normal.h"

struct Element {
  uint32_t bits;
  float out[2];
};
constexpr uint32_t kRadius = 0x12345678, kAngle = 0x2468ace1;  // any words

PYVAE_HD float number(const Element* e) { return pyvae::bit_cast<float>(e->bits); }
PYVAE_HD pyvae::SinCos<float> sigmas(float s) {
  return {pyvae::LogVariance::sigma(s), pyvae::LogStandardDeviation::sigma(s)};
}
PYVAE_HD void write(Element* e, pyvae::SinCos<float> pair) { e->out[0] = pair.sin, e->out[1] = pair.cos; }
