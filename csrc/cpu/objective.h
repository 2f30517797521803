// Decoder side: the negative log-likelihood of a chunk and its gradient by `recon`.
#pragma once

#include "cpu/chunk.h"
#include "math/likelihood.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class Bits>
Bits larger(Bits a, Bits b) {
  return a > b ? a : b;
}

// Values and, if kGradient, factor * derivatives of n elements. Returns false if a number that has to be in [0, 1] may
// be outside: as integers, those are the numbers up to 1's bits, at one operation each; but -0 and NaN have more.
template <class Likelihood, bool kGradient, bool kPosWeight, class T>
bool map_likelihood(const T* __restrict recon, const T* __restrict target, const T* __restrict pos_weight, T factor,
                    int n, T* __restrict values, T* __restrict gradient) {
  using Bits = typename Real<T>::Bits;
  Bits most = 0;
  for (int i = 0; i < n; ++i) {
    const Term<T> term =
        Likelihood::template evaluate<Exact, kPosWeight>(recon[i], target[i], kPosWeight ? pos_weight[i] : T(1));
    values[i] = term.value;
    if (kGradient) gradient[i] = factor * term.derivative;
    if (Likelihood::kProbability) most = larger(most, bit_cast<Bits>(recon[i]));
    if (Likelihood::kUnitTarget) most = larger(most, bit_cast<Bits>(target[i]));
  }
  return most <= bit_cast<Bits>(T(1));
}

// Where `mask` is given, what it leaves out is not looked at. A NaN passes: it goes through to the loss.
template <class T>
bool are_unit(const T* x, const T* mask, int n) {
  int outside = 0;
  for (int i = 0; i < n; ++i) outside |= ((x[i] < T(0)) | (x[i] > T(1))) & (!mask || mask[i] != T(0));
  return !outside;
}

template <class T>
void multiply(T* __restrict out, const T* __restrict by, int n) {
  for (int i = 0; i < n; ++i) out[i] *= by[i];
}

// Results of what a mask leaves out: 0, whatever was computed of it.
template <class T>
void select(T* __restrict out, const T* __restrict mask, int n) {
  for (int i = 0; i < n; ++i) out[i] = mask[i] != T(0) ? out[i] : T(0);
}

// A factor's elements, or its number as many times; null where the number is 1.
template <class T>
const T* factors(const Shape& shape, const Operand& factor, double number, int64_t first, int n, T* buffer) {
  if (factor.data) return read(shape, factor, first, n, buffer);
  if (number == 1) return nullptr;
  for (int i = 0; i < n; ++i) buffer[i] = T(number);
  return buffer;
}

template <class Likelihood, class T>
bool objective_of(const Objective& a, int64_t begin, int64_t end) {
  T recon_buffer[kBuffer], target_buffer[kBuffer], factor_buffer[kBuffer], values[kBuffer], gradient_buffer[kBuffer];
  T weight_buffer[kBuffer];
  bool legal = true;
  map_and_reduce<T>(a.shape, a.sums, begin, end, [&](int64_t first, int n, int64_t row, int rows) -> const T* {
    const T* recon = read(a.shape, a.recon, first, n, recon_buffer);
    const T* target = read(a.shape, a.target, first, n, target_buffer);
    const T* pos_weight = factors(a.shape, a.pos_weight, a.pos_weight_number, first, n, factor_buffer);
    const T* weight = factors(a.shape, a.weight, a.weight_number, first, n, weight_buffer);
    const T* mask = a.is_masked ? weight : nullptr;
    T* gradient = a.gradient.data ? place(a.gradient, first, gradient_buffer) : nullptr;

    const auto map =
        gradient
            ? (pos_weight ? map_likelihood<Likelihood, true, true, T> : map_likelihood<Likelihood, true, false, T>)
            : (pos_weight ? map_likelihood<Likelihood, false, true, T> : map_likelihood<Likelihood, false, false, T>);
    if (!map(recon, target, pos_weight, T(a.factor), n, values, gradient)) {
      if (Likelihood::kProbability) legal &= are_unit(recon, mask, n);
      if (Likelihood::kUnitTarget) legal &= are_unit(target, mask, n);
    }

    if (weight && !mask) {
      multiply(values, weight, n);
      if (gradient) multiply(gradient, weight, n);
    }
    if (gradient && a.upstream) {
      spread(a.upstream, row, rows, n, factor_buffer);
      multiply(gradient, factor_buffer, n);
    }
    if (mask) {
      select(values, mask, n);
      if (gradient) select(gradient, mask, n);
    }
    if (gradient) write(a.shape, a.gradient, first, n, gradient);
    return values;
  });
  return legal;
}

template <class T>
bool objective(const Objective& a, int64_t begin, int64_t end) {
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    if constexpr (Likelihood::kByRows) {
      return false;  // rows.h
    } else {
      return objective_of<Likelihood, T>(a, begin, end);
    }
  });
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
