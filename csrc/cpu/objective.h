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

template <class T>
bool are_unit(const T* x, int n) {  // a NaN passes: it goes through to the loss
  int outside = 0;
  for (int i = 0; i < n; ++i) outside |= (x[i] < T(0)) | (x[i] > T(1));
  return !outside;
}

template <class T>
void multiply(T* __restrict out, const T* __restrict by, int n) {
  for (int i = 0; i < n; ++i) out[i] *= by[i];
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
  bool legal = true;
  map_and_reduce<T>(a.shape, a.sums, begin, end, [&](int64_t first, int n, int64_t row, int rows) -> const T* {
    const T* recon = read(a.shape, a.recon, first, n, recon_buffer);
    const T* target = read(a.shape, a.target, first, n, target_buffer);
    const T* pos_weight = factors(a.shape, a.pos_weight, a.pos_weight_number, first, n, factor_buffer);
    T* gradient = a.gradient.data ? place(a.gradient, first, gradient_buffer) : nullptr;

    const auto map =
        gradient
            ? (pos_weight ? map_likelihood<Likelihood, true, true, T> : map_likelihood<Likelihood, true, false, T>)
            : (pos_weight ? map_likelihood<Likelihood, false, true, T> : map_likelihood<Likelihood, false, false, T>);
    if (!map(recon, target, pos_weight, T(a.factor), n, values, gradient)) {
      if (Likelihood::kProbability) legal &= are_unit(recon, n);
      if (Likelihood::kUnitTarget) legal &= are_unit(target, n);
    }

    if (const T* weight = factors(a.shape, a.weight, a.weight_number, first, n, factor_buffer)) {
      multiply(values, weight, n);
      if (gradient) multiply(gradient, weight, n);
    }
    if (gradient && a.upstream) {
      spread(a.upstream, row, rows, n, factor_buffer);
      multiply(gradient, factor_buffer, n);
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
