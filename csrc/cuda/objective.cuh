// Decoder side, as functors for the skeleton in reduce.cuh. ReconAccess and TargetAccess are Packed<type> or Any.
#pragma once

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

// value: weight * the negative log-likelihood; gradient: factor * upstream * weight * its derivative
template <class Likelihood, class Math, class ReconAccess, class TargetAccess, class T_>
struct NegativeLogLikelihood {
  using T = T_;
  const Objective& a;
  T factor;
  const ObjectiveBackward* backward;  // null in the forward pass: upstream is 1

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    const typename ReconAccess::Place at = ReconAccess::place(a.shape, i);
    const typename TargetAccess::Place target_at = TargetAccess::place(a.shape, i);
    T recon[V], target[V], gradient[V];
    ReconAccess::load(a.shape, a.recon, at, recon);
    TargetAccess::load(a.shape, a.target, target_at, target);
    if (ReconAccess::kGeneral && Likelihood::kTakesPosWeight) {
      T pos_weight[V];
      load_factor(a.pos_weight, a.pos_weight_value, at, pos_weight);
      evaluate<true>(recon, target, pos_weight, values, gradient);
    } else {
      evaluate<false>(recon, target, target, values, gradient);
    }
    if (ReconAccess::kGeneral) {
      T weight[V];
      load_factor(a.weight, a.weight_value, at, weight);
      for (int k = 0; k < V; ++k) values[k] *= weight[k], gradient[k] *= weight[k];
    }
    if (ReconAccess::kGeneral && backward) {
      T loss[V], recon_term[V];
      rows_of<false>(backward->grad_loss, a.shape.features, i, loss);
      rows_of<false>(backward->grad_recon, a.shape.features, i, recon_term);
      for (int k = 0; k < V; ++k) gradient[k] *= loss[k] + recon_term[k];
    }
    if (a.gradient.data) ReconAccess::store(a.shape, a.gradient, at, gradient);
  }

 private:
  template <int V>
  __device__ __forceinline__ void load_factor(const Operand& factor, double value, typename ReconAccess::Place at,
                                              T (&out)[V]) const {
    if (factor.data) return ReconAccess::load(a.shape, factor, at, out);
    for (int k = 0; k < V; ++k) out[k] = T(value);
  }

  template <bool kPosWeight, int V>
  __device__ __forceinline__ void evaluate(const T (&recon)[V], const T (&target)[V], const T (&pos_weight)[V],
                                           T (&values)[V], T (&gradient)[V]) const {
    for (int k = 0; k < V; ++k) {
      const Term<T> term = Likelihood::template evaluate<Math, kPosWeight>(recon[k], target[k], pos_weight[k]);
      values[k] = term.value;
      gradient[k] = factor * term.derivative;
      if (Likelihood::kProbability && !((recon[k] >= T(0)) & (recon[k] <= T(1)))) {
        values[k] = gradient[k] = T(__builtin_nan(""));
      }
    }
  }
};

// The types of recon and target that have kernels of their own, with their arithmetic, T and vectors. Everything else
// takes Any.
#define PYVAE_PACKED_TYPES(X)                                        \
  X(kFloat, float, kFloat, float, Accurate, float, 8)                \
  X(kBFloat16, BFloat16, kBFloat16, BFloat16, Approximate, float, 8) \
  X(kBFloat16, BFloat16, kFloat, float, Approximate, float, 8)       \
  X(kHalf, Half, kHalf, Half, Approximate, float, 8)                 \
  X(kHalf, Half, kFloat, float, Approximate, float, 8)               \
  X(kDouble, double, kDouble, double, Accurate, double, 2)

// Whether the kernel of such a pair can take a call.
inline bool is_packed(const Objective& a, Type recon, Type target) {
  return is_unweighted(a) && is_packed(a.shape, a.recon, recon) && is_packed(a.shape, a.target, target) &&
         is_packed_output(a.shape, a.gradient, recon);
}

// value: the divergence of one element of the posterior
template <class T_>
struct PosteriorDivergence {
  using T = T_;
  const Posterior& a;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    T mu[V], scale[V];
    Any::load(a.shape, a.mu, i, mu);
    Any::load(a.shape, a.scale, i, scale);
    int kind = 0;
#define PYVAE_CASE(Scale, name)                                                                      \
  if (kind++ == a.scale_kind) {                                                                      \
    for (int k = 0; k < V; ++k) values[k] = fma(T(0.5) * mu[k], mu[k], Scale::divergence(scale[k])); \
  }
    PYVAE_SCALES(PYVAE_CASE)
#undef PYVAE_CASE
  }
};

}  // namespace cuda
}  // namespace pyvae
