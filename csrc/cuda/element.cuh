// One element of the decoder side: what every kernel of it does the same way, with or without a softmax.
#pragma once

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

template <class T>
__device__ __forceinline__ bool is_unit(T x) {
  return (x >= T(0)) & (x <= T(1));
}

template <class Likelihood, class T>
__device__ __forceinline__ bool is_legal(T recon, T target) {
  return (!Likelihood::kProbability || is_unit(recon)) && (!Likelihood::kUnitTarget || is_unit(target));
}

// The value and its derivatives; of illegal data NaN. `own`: the parameters, and after them the pos_weight.
template <class Likelihood, class Math, class T>
__device__ __forceinline__ Terms<T, Likelihood::kParameters> evaluate_element(
    T recon, T target, const T (&own)[at_least_one(kReads<Likelihood>)]) {
  if constexpr (Likelihood::kIsCount) {
    if (target == T(0)) return Likelihood::template evaluate_zero<Math>(recon, own);
  }
  const T seen = is_legal<Likelihood>(recon, target) ? target : T(__builtin_nan(""));  // goes through to all results
  return evaluate<Likelihood, Math>(recon, seen, own);
}

template <class T, int P>
__device__ __forceinline__ void scale_gradients(Terms<T, P>& term, T by) {
  term.derivative *= by;
  for (int k = 0; k < P; ++k) term.parameters[k] *= by;
}

// Weights are factors, but those of bools (`masked`) select: what is left out is not looked at.
template <class T, int P>
__device__ __forceinline__ void apply_weight(Terms<T, P>& term, T weight, bool masked) {
  if (!masked) {
    term.value *= weight;
    scale_gradients(term, weight);
  } else if (weight == T(0)) {
    term = {};
  }
}

// ---- where it lies, in kernels that take elements one by one --------------------------------------------------------

template <class List, class T>
__device__ __forceinline__ T load_one(const Shape& shape, const Operand& operand, int64_t i) {
  T value[1];
  AnyOf<List>::load(shape, operand, i, value);
  return value[0];
}

template <class List, class T>
__device__ __forceinline__ void store_one(const Shape& shape, const Operand& operand, int64_t i, T value) {
  const T values[1] = {value};
  AnyOf<List>::template store<List>(shape, operand, i, values);
}

template <class T>
__device__ __forceinline__ T load_weight(const ObjectiveOperands& a, int64_t i) {
  return a.weight.data ? load_one<FactorTypes, T>(a.shape, a.weight, i) : T(a.weight_number);
}

// Whether an element counts, by a weight of bools if there is one.
template <class T>
__device__ __forceinline__ bool is_selected(const ObjectiveOperands& a, int64_t i) {
  return !a.is_weighted || !a.is_masked || load_weight<T>(a, i) != T(0);
}

// One element's value and its derivatives, weighted; `shift` is what is added to recon: log_library - log sum exp.
template <class Likelihood, class T>
__device__ __forceinline__ Terms<T, Likelihood::kParameters> evaluate_at(const ObjectiveOperands& a, int64_t i,
                                                                         T shift) {
  constexpr int P = Likelihood::kParameters;
  T own[at_least_one(P)] = {};
  for (int k = 0; k < P; ++k) own[k] = load_one<FloatingTypes, T>(a.shape, a.parameters[k], i);
  const T recon = load_one<FloatingTypes, T>(a.shape, a.recon, i) + shift;
  auto term = evaluate_element<Likelihood, Accurate>(recon, load_one<StoredTypes, T>(a.shape, a.target, i), own);
  if (a.is_weighted) apply_weight(term, load_weight<T>(a, i), a.is_masked);
  return term;
}

// What the gradients of a row are multiplied by.
template <class Call>
__device__ __forceinline__ double scale_of(const Call& a, int64_t row) {
  return a.factor * (a.upstream.data ? read(a.upstream, row) : 1);
}

}  // namespace cuda
}  // namespace pyvae
