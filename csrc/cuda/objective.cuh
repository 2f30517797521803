// Decoder side, as functors for the skeleton in reduce.cuh.
#pragma once

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "math/elbo.h"
#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

// value: weight * the negative log-likelihood; gradient: factor * upstream * weight * its derivative
template <class Likelihood, class Way>
struct NegativeLogLikelihood {
  using T = typename Way::T;
  using ReconAccess = typename Way::Access;
  using TargetAccess = typename Way::TargetAccess;
  using Math = typename Way::Math;
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
      load_factor(a.pos_weight, a.pos_weight_number, at, pos_weight);
      evaluate<true>(recon, target, pos_weight, values, gradient);
    } else {
      evaluate<false>(recon, target, target, values, gradient);
    }
    if (ReconAccess::kGeneral) {
      T weight[V];
      load_factor(a.weight, a.weight_number, at, weight);
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

// The types of recon and target that have kernels of their own, and their arithmetic; and every other.
template <class Stored, class Target_, class Math_, class T = float>
struct PackedPair : PackedAs<Stored, T> {
  using Target = Target_;
  using TargetAccess = Packed<Target>;
  using Math = Math_;
};
template <class T>
struct GeneralPair : GeneralAs<T> {
  using TargetAccess = Any;
  using Math = Accurate;
};
using PackedPairs = Types<PackedPair<float, float, Accurate>,           //
                          PackedPair<BFloat16, BFloat16, Approximate>,  //
                          PackedPair<BFloat16, float, Approximate>,     //
                          PackedPair<Half, Half, Approximate>,          //
                          PackedPair<Half, float, Approximate>,         //
                          PackedPair<double, double, Accurate, double>>;

// Launches the kernel for a call's likelihood and types, launch(Tag<likelihood>(), Tag<way>()). `packed`: whether the
// rest of the call lets vectors be taken.
template <class Launch>
const char* choose(const Objective& a, bool packed, const Launch& launch) {
  packed &= !a.weight.data && !a.pos_weight.data && a.weight_number == 1 && a.pos_weight_number == 1;
  const auto suits = [&](auto way) {
    using Pair = typename decltype(way)::type;
    constexpr int8_t kRecon = kTypeCode<typename Pair::Stored>, kTarget = kTypeCode<typename Pair::Target>;
    return packed && is_packed(a.shape, a.recon, kRecon) && is_packed(a.shape, a.target, kTarget) &&
           is_packed(a.shape, a.gradient, kRecon);
  };
  return visit(Likelihoods{}, a.likelihood, [&](auto likelihood) {
    return choose<PackedPairs, GeneralPair>(a.in_double, suits, [&](auto way) { return launch(likelihood, way); });
  });
}

// value: the divergence of one element of the posterior
template <class T_>
struct PosteriorDivergence {
  using T = T_;
  const LatentOperands& a;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    T mu[V], scale[V];
    Any::load(a.shape, a.mu, i, mu);
    Any::load(a.shape, a.scale, i, scale);
    visit(Scales{}, a.scale_kind, [&](auto form) {
      using Scale = typename decltype(form)::type;
      for (int k = 0; k < V; ++k) values[k] = Posterior<Scale>::divergence(mu[k], scale[k]);
    });
  }
};

}  // namespace cuda
}  // namespace pyvae
