// Decoder side, as functors for the skeleton in reduce.cuh.
#pragma once

#include <type_traits>

#include "cuda/hardware.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "math/elbo.h"
#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

// Those with parameters, and those of counts: by_rows.cu.
template <class Likelihood>
constexpr bool kGoesByRows = Likelihood::kParameters > 0 || Likelihood::kIsCount;

// value: weight * the negative log-likelihood; gradient: factor * upstream * weight * its derivative
template <class Likelihood, class Way>
struct NegativeLogLikelihood {
  using T = typename Way::T;
  using Access = typename Way::Access;  // recon's and its gradient's
  using Place = typename Access::Place;
  using WithPosWeight = std::conditional_t<kTakesPosWeight<Likelihood>, typename Likelihood::WithPosWeight, Likelihood>;
  const Objective& a;
  T factor;
  const ObjectiveBackward* backward;  // null in the forward pass: upstream is 1

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    const Place at = Access::place(a.shape, i);
    T recon[V], target[V], gradient[V], scale = factor;
    if (!Access::kGeneral && backward) {  // the vector lies in one row
      T upstream[1];
      upstream_of(i, upstream);
      scale *= upstream[0];
    }
    Access::load(a.shape, a.recon, at, recon);
    Way::Target::load(a.shape, a.target, at, target);
    if (kTakesPosWeight<Likelihood> && a.is_pos_weighted) {
      T pos_weight[V];
      load_factor(a.pos_weight, a.pos_weight_number, at, pos_weight);
      evaluate_all<WithPosWeight>(recon, target, pos_weight, scale, values, gradient);
    } else {
      evaluate_all<Likelihood>(recon, target, target, scale, values, gradient);
    }
    if (a.is_weighted) {
      T weight[V];
      load_factor(a.weight, a.weight_number, at, weight);
      if (a.is_masked) {  // what is left out is not looked at
        for (int k = 0; k < V; ++k) {
          if (weight[k] == T(0)) values[k] = gradient[k] = T(0);
        }
      } else {
        for (int k = 0; k < V; ++k) values[k] *= weight[k], gradient[k] *= weight[k];
      }
    }
    if (Access::kGeneral && backward) {
      T upstream[V];
      upstream_of(i, upstream);
      for (int k = 0; k < V; ++k) gradient[k] *= upstream[k];
    }
    if (a.gradient.data) Access::store(a.shape, a.gradient, at, gradient);
  }

 private:
  // The upstream gradients of elements i, i + 1, ...
  template <int V>
  __device__ __forceinline__ void upstream_of(int64_t i, T (&out)[V]) const {
    T recon_term[V];
    rows_of<!Access::kGeneral>(backward->grad_loss, a.shape.features, i, out);
    rows_of<!Access::kGeneral>(backward->grad_recon, a.shape.features, i, recon_term);
    for (int k = 0; k < V; ++k) out[k] += recon_term[k];
  }

  template <int V>
  __device__ __forceinline__ void load_factor(const Operand& factor, double value, Place at, T (&out)[V]) const {
    if (factor.data) return Way::Factor::load(a.shape, factor, at, out);
    for (int k = 0; k < V; ++k) out[k] = T(value);
  }

  template <class L, int V>
  __device__ __forceinline__ void evaluate_all(const T (&recon)[V], const T (&target)[V], const T (&pos_weight)[V],
                                               T scale, T (&values)[V], T (&gradient)[V]) const {
    using Math = typename Way::Math;
    for (int k = 0; k < V; ++k) {
      const T seen = is_legal(recon[k], target[k]) ? target[k] : T(__builtin_nan(""));  // goes through to both results
      const T own[1] = {pos_weight[k]};
      const Terms<T, 0> term = L::template evaluate<Math>(recon[k], seen, own);
      values[k] = term.value;
      gradient[k] = scale * term.derivative;
    }
  }

  __device__ __forceinline__ static bool is_legal(T recon, T target) {
    return (!Likelihood::kProbability || is_unit(recon)) && (!Likelihood::kUnitTarget || is_unit(target));
  }
  __device__ __forceinline__ static bool is_unit(T x) { return (x >= T(0)) & (x <= T(1)); }
};

// The types of recon that have kernels of their own, and their arithmetic; and every other.
using VectorTypes = Joined<FactorTypes, Types<uint8_t>>;  // of targets: the wider integers would cost registers
template <class Stored, class Math_, class T = float>
struct PackedRecon : PackedAs<Stored, T> {
  using Target = PackedAny<Stored, VectorTypes>;
  using Factor = PackedAny<Stored, FactorTypes>;
  using Math = Math_;
};
template <class T>
struct GeneralRecon : GeneralAs<T> {
  using Target = AnyOf<StoredTypes>;
  using Factor = AnyOf<FactorTypes>;
  using Math = Accurate;
};
using PackedRecons = Types<PackedRecon<float, Accurate>,        //
                           PackedRecon<BFloat16, Approximate>,  //
                           PackedRecon<Half, Approximate>,      //
                           PackedRecon<double, Accurate, double>>;

// Launches the kernel for a call's likelihood and types, launch(Tag<likelihood>(), Tag<way>()). `packed`: whether the
// rest of the call lets vectors be taken.
template <class Launch>
const char* choose(const Objective& a, bool packed, const Launch& launch) {
  packed &= a.target.type < VectorTypes::kCount;
  for (const Operand* other : {&a.target, &a.weight, &a.pos_weight}) packed &= is_packed(a.shape, *other, other->type);
  const auto suits = [&](auto way) {
    using Way = typename decltype(way)::type;
    constexpr int8_t kType = kTypeCode<typename Way::Stored>;
    return packed && a.in_double == (sizeof(typename Way::T) == 8) && is_packed(a.shape, a.recon, kType) &&
           is_packed(a.shape, a.gradient, kType);
  };
  return visit(Likelihoods{}, a.likelihood, [&](auto likelihood) -> const char* {
    if constexpr (kGoesByRows<typename decltype(likelihood)::type>)
      return "this likelihood goes by rows";  // by_rows.cu
    else
      return choose<PackedRecons, GeneralRecon>(a.in_double, suits, [&](auto way) { return launch(likelihood, way); });
  });
}

// loss = likelihood + beta KL of one row, from the sums of both.
__device__ __forceinline__ void write_terms(const Objective& a, int64_t row, double recon_term, double kl_term) {
  recon_term *= a.mean;
  kl_term *= a.mean;
  const double beta = a.beta_tensor.data ? a.beta * read(a.beta_tensor, 0) : a.beta;
  write(a.loss, row, negative_elbo(recon_term, kl_term, beta));
  write(a.recon_term, row, recon_term);
  write(a.kl_term, row, kl_term);
}

// value: the divergence of one element of the posterior
template <class T_>
struct PosteriorDivergence {
  using T = T_;
  const LatentOperands& a;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    T mu[V], scale[V];
    AnyOf<FactorTypes>::load(a.shape, a.mu, i, mu);
    AnyOf<FactorTypes>::load(a.shape, a.scale, i, scale);
    visit(Scales{}, a.scale_kind, [&](auto form) {
      using Scale = typename decltype(form)::type;
      for (int k = 0; k < V; ++k) values[k] = Posterior<Scale>::divergence(mu[k], scale[k]);
    });
  }
};

}  // namespace cuda
}  // namespace pyvae
