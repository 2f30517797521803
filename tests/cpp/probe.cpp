// The formulas of csrc/math over arrays, for tests/test_elementary.py: one loop a function, written as the kernels
// write theirs, so that the compiler vectorizes it the same way.
//
// Entry points: float and double forms of unary_NAME(n, x, y); the rest is spelled out below.

#include <cstdint>

#include "cpu/noise.h"
#include "math/exact.h"
#include "math/gaussian.h"
#include "math/likelihood.h"

#define UNARY(NAME, FUNCTION)                                                                  \
  extern "C" void NAME##_float(int64_t n, const float* __restrict x, float* __restrict y) {    \
    for (int64_t i = 0; i < n; ++i) y[i] = FUNCTION(x[i]);                                     \
  }                                                                                            \
  extern "C" void NAME##_double(int64_t n, const double* __restrict x, double* __restrict y) { \
    for (int64_t i = 0; i < n; ++i) y[i] = FUNCTION(x[i]);                                     \
  }

UNARY(exp, pyvae::exp)
UNARY(exp_negative, pyvae::exp_negative)
UNARY(expm1, pyvae::expm1)
UNARY(exp_excess, pyvae::exp_excess)
UNARY(log, pyvae::log)
UNARY(log1p_unit, pyvae::log1p_unit)
UNARY(log1m_unit, pyvae::log1m_unit<pyvae::Exact>)

// One scale's sigma, divergence or divergence_derivative (part 0, 1, 2), by its code.
template <class T>
void scale(int code, int part, int64_t n, const T* __restrict x, T* __restrict y) {
  pyvae::visit(pyvae::Scales{}, code, [&](auto tag) {
    using Scale = typename decltype(tag)::type;
    for (int64_t i = 0; part == 0 && i < n; ++i) y[i] = Scale::sigma(x[i]);
    for (int64_t i = 0; part == 1 && i < n; ++i) y[i] = Scale::divergence(x[i]);
    for (int64_t i = 0; part == 2 && i < n; ++i) y[i] = Scale::divergence_derivative(x[i]);
  });
}
extern "C" void scale_float(int code, int part, int64_t n, const float* x, float* y) { scale(code, part, n, x, y); }
extern "C" void scale_double(int code, int part, int64_t n, const double* x, double* y) { scale(code, part, n, x, y); }

// Value and derivative of one likelihood without parameters, by its code: recon, target and pos_weight in, all [n]; or
// without pos_weight.
template <class Likelihood, class T>
void likelihood_of(int64_t n, const T* __restrict x, const T* __restrict t, const T* __restrict w, T* __restrict value,
                   T* __restrict derivative) {
  for (int64_t i = 0; i < n; ++i) {
    const T own[1] = {pyvae::kReads<Likelihood> > 0 ? w[i] : T(1)};
    const auto terms = pyvae::evaluate<Likelihood, pyvae::Exact>(x[i], t[i], own);
    value[i] = terms.value, derivative[i] = terms.derivative;
  }
}
template <class T>
void likelihood(int code, int weighted, int64_t n, const T* x, const T* t, const T* w, T* value, T* derivative) {
  pyvae::visit(pyvae::Likelihoods{}, code, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    if constexpr (Likelihood::kParameters == 0) {
      if constexpr (pyvae::kTakesPosWeight<Likelihood>) {
        if (weighted) return likelihood_of<typename Likelihood::WithPosWeight>(n, x, t, w, value, derivative);
      }
      likelihood_of<Likelihood>(n, x, t, w, value, derivative);
    }
  });
}
extern "C" void likelihood_float(int code, int weighted, int64_t n, const float* x, const float* t, const float* w,
                                 float* value, float* derivative) {
  likelihood(code, weighted, n, x, t, w, value, derivative);
}
extern "C" void likelihood_double(int code, int weighted, int64_t n, const double* x, const double* t, const double* w,
                                  double* value, double* derivative) {
  likelihood(code, weighted, n, x, t, w, value, derivative);
}

// counter [n, 4] and key [n, 2] to words [n, 4]
extern "C" void philox(int64_t n, const uint32_t* counter, const uint32_t* key, uint32_t* words) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t* c = counter + 4 * i;
    const uint32_t* k = key + 2 * i;
    const auto w = pyvae::philox<uint64_t>(k[0] | uint64_t(k[1]) << 32, {c[0], c[1], c[2], c[3]});
    words[4 * i] = uint32_t(w.w0), words[4 * i + 1] = uint32_t(w.w1);
    words[4 * i + 2] = uint32_t(w.w2), words[4 * i + 3] = uint32_t(w.w3);
  }
}

// The kernels' draw, chunk by chunk: the normals [n] of the global indices from `first` on.
template <class T>
void draw(int64_t n, uint64_t seed, uint64_t first, T* normals) {
  constexpr int64_t kChunk = pyvae::cpu::kChunk;
  T buffer[pyvae::kBuffer];
  for (int64_t done = 0; done < n; done += kChunk) {
    const int length = int(n - done < kChunk ? n - done : kChunk);
    const T* drawn = pyvae::draw<T>(seed, /*sample=*/0, first + uint64_t(done), length, buffer);
    for (int i = 0; i < length; ++i) normals[done + i] = drawn[i];
  }
}

extern "C" void draw_float(int64_t n, uint64_t seed, uint64_t first, float* normals) { draw(n, seed, first, normals); }
extern "C" void draw_double(int64_t n, uint64_t seed, uint64_t first, double* normals) {
  draw(n, seed, first, normals);
}

// Radius and angle words [n] to normals [n] each.
extern "C" void box_muller_float(int64_t n, const uint32_t* radius, const uint32_t* angle, float* __restrict cosine,
                                 float* __restrict sine) {
  for (int64_t i = 0; i < n; ++i) {
    const auto pair = pyvae::box_muller(radius[i], angle[i]);
    cosine[i] = pair.cos, sine[i] = pair.sin;
  }
}

extern "C" void box_muller_double(int64_t n, const uint64_t* radius, const uint64_t* angle, double* __restrict cosine,
                                  double* __restrict sine) {
  for (int64_t i = 0; i < n; ++i) {
    const auto pair = pyvae::box_muller(radius[i], angle[i]);
    cosine[i] = pair.cos, sine[i] = pair.sin;
  }
}
