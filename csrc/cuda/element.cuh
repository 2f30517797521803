// One element of the decoder side: what every kernel of it does the same way, with or without a softmax.
#pragma once

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

// Counts, and whatever has parameters: by tiles, which keep rows and columns apart. The others go element by element.
template <class Likelihood>
constexpr bool kGoesByTiles = Likelihood::kIsCount || Likelihood::kParameters > 0;

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

// What the gradients of a row are multiplied by.
template <class Call>
__device__ __forceinline__ double scale_of(const Call& a, int64_t row) {
  return a.factor * (a.upstream.data ? read(a.upstream, row) : 1);
}

}  // namespace cuda
}  // namespace pyvae
