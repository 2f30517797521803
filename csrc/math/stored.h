// Converts the dtypes that tensors store to the compute dtype: exactly, except for integers above its 24 or 53 bits,
// which are rounded to nearest, ties to even. Converts floating dtypes back, rounded likewise. 16-bit floating values
// are passed as their bits.
#pragma once

#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

PYVAE_HD float half_to_float(uint16_t half) {
#ifdef __CUDA_ARCH__
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(half));
  return out;
#else
  const uint32_t magnitude = half & 0x7fffu;
  const float finite = bit_cast<float>(magnitude << 13) * 0x1p112f;  // also exact for denormals
  const uint32_t special = 0x7f800000u | magnitude << 13;
  return bit_cast<float>((magnitude < 0x7c00u ? bit_cast<uint32_t>(finite) : special) | uint32_t(half & 0x8000u) << 16);
#endif
}

PYVAE_HD uint16_t float_to_half(float x) {
#ifdef __CUDA_ARCH__
  uint16_t out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
  return out;
#else
  const uint32_t bits = bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  const uint32_t rounded = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  const uint32_t normal = rounded < 0x7c00u ? rounded : 0x7c00u;
  // The last bit of 1/2 is the smallest denormal half: the sum rounds to a multiple of it.
  const uint32_t denormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < 0x38800000u ? denormal : normal;
  return uint16_t((magnitude > 0x7f800000u ? 0x7e00u : finite) | (bits >> 16 & 0x8000u));
#endif
}

PYVAE_HD float bfloat16_to_float(uint16_t x) { return bit_cast<float>(uint32_t(x) << 16); }

PYVAE_HD uint16_t float_to_bfloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
  return out;
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
#endif
}

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
struct Bool {
  uint8_t bits;
};

// In the order of their codes, Operand::type. Only floating dtypes are written; masks may also be bool, and data may
// also be integers.
using FloatingTypes = Types<float, double, Half, BFloat16>;
using FactorTypes = Joined<FloatingTypes, Types<Bool>>;
using StoredTypes = Joined<FactorTypes, Types<uint8_t, int8_t, int16_t, int32_t, int64_t>>;

template <class Stored>
constexpr int8_t kTypeCode = int8_t(kCode<Stored, StoredTypes>);

template <class T, class Stored>
PYVAE_HD T widen(Stored x) {
  return T(x);
}
template <class T>
PYVAE_HD T widen(Half x) {
  return T(half_to_float(x.bits));
}
template <class T>
PYVAE_HD T widen(BFloat16 x) {
  return T(bfloat16_to_float(x.bits));
}
template <class T>
PYVAE_HD T widen(Bool x) {
  return T(x.bits != 0);
}

template <class Stored, class T>
PYVAE_HD Stored narrow(T x) {
  if constexpr (kTypeCode<Stored> == kTypeCode<Half>) {
    return {float_to_half(float(x))};
  } else if constexpr (kTypeCode<Stored> == kTypeCode<BFloat16>) {
    return {float_to_bfloat16(float(x))};
  } else {
    static_assert(kTypeCode<Stored> < FloatingTypes::kCount, "only floating types are written");
    return Stored(x);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
