// What the formulas need from the compiler: host + device inlining, bit casts, and arithmetic that rounds once.
//
// Everything in csrc/math compiles as plain C++17 (g++ vectorizes the loops around it) and as CUDA device code. The
// noise must have the same bits everywhere, so the only operations used are those that IEEE 754 rounds correctly
// (+, -, *, /, sqrt, fma) and integer ones; contraction of a*b + c is switched off in the build (-ffp-contract=off,
// -fmad=false) and asked for explicitly with fma().
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#  define PYVAE_HD __host__ __device__ __forceinline__
#  define PYVAE_UNROLL _Pragma("unroll")
#  define PYVAE_ANY_SPACE _Pragma("nv_exec_check_disable")  // a template runs where its function does
#else
#  define PYVAE_HD inline __attribute__((always_inline))
#  define PYVAE_UNROLL _Pragma("GCC unroll 16")
#  define PYVAE_ANY_SPACE
#endif

// The CPU kernels compile these headers once per instruction set. Each copy has its own namespace: otherwise the linker
// could keep the AVX-512 copy of an inline function, and call it on a machine without AVX-512.
#ifndef PYVAE_ISA
#  define PYVAE_ISA portable
#endif

namespace pyvae {
inline namespace PYVAE_ISA {

template <class To, class From>
PYVAE_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// Write the negative as T(0) - fma(a, b, c): g++ turns -fma(a, b, c) into -(a b) - c if there is an instruction for it,
// and then a sum that is 0 has the other sign.
PYVAE_HD float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
PYVAE_HD double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

#ifdef __CUDA_ARCH__
// For 0 and 2^-100 <= x < inf: the five instructions of __fsqrt_rn for that range, without its branch for the rest.
// CUDA guarantees the rounding of __fsqrt_rn only; PTX's bound for rsqrt.approx does not imply it. So
// tools/root_code.py compares the two in the machine code of every architecture that is built.
PYVAE_HD float sqrt(float x) {
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  const float root = x * inverse;
  const float corrected = fma(fma(-root, root, x), 0.5f * inverse, root);
  return x == 0.0f ? x : corrected;
}
PYVAE_HD double sqrt(double x) { return __dsqrt_rn(x); }
#else
PYVAE_HD float sqrt(float x) { return __builtin_sqrtf(x); }
PYVAE_HD double sqrt(double x) { return __builtin_sqrt(x); }
#endif

PYVAE_HD float absolute(float x) { return __builtin_fabsf(x); }
PYVAE_HD double absolute(double x) { return __builtin_fabs(x); }

// |x| with the sign of y
PYVAE_HD float copy_sign(float x, float y) { return __builtin_copysignf(x, y); }
PYVAE_HD double copy_sign(double x, double y) { return __builtin_copysign(x, y); }

// A NaN in `a` is kept: each comparison with it is false.
template <class T>
PYVAE_HD T at_most(T a, T limit) {
  return a > limit ? limit : a;
}
template <class T>
PYVAE_HD T at_least(T a, T limit) {
  return a < limit ? limit : a;
}

// c0 + c1 x + c2 x^2 + ..., by Horner's rule.
template <class T>
PYVAE_HD T polynomial(T, T c0) {
  return c0;
}
template <class T, class... Rest>
PYVAE_HD T polynomial(T x, T c0, Rest... rest) {
  return fma(polynomial(x, T(rest)...), x, c0);
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
