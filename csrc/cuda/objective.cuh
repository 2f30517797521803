// Decoder side of likelihoods that go element by element, as functors for the skeleton in reduce.cuh.
#pragma once

#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/loss_terms.cuh"
#include "cuda/reduce.cuh"
#include "math/gaussian.h"

namespace pyvae {
namespace cuda {

// value: weight * the negative log-likelihood
// gradient: factor * upstream * weight * its derivative by recon
// kForward: whether a.elements may be wanted, each element's value
template <class Likelihood, class Way, bool kForward>
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
    T recon[V], target[V], scale = factor;
    if (!Access::kGeneral && backward) {  // the vector lies in one row
      T upstream[1];
      upstream_of(i, upstream);
      scale *= upstream[0];
    }
    Access::load(a.shape, a.recon, at, recon);
    Way::Target::load(a.shape, a.target, at, target);
    Terms<T, 0> terms[V];
    if (kTakesPosWeight<Likelihood> && a.is_pos_weighted) {
      evaluate_all<WithPosWeight>(at, recon, target, scale, terms);
    } else {
      evaluate_all<Likelihood>(at, recon, target, scale, terms);
    }
    if (a.is_weighted) {
      T weight[V];
      load_factor(a.weight, a.weight_number, at, weight);
      if (a.is_masked) {
        for (int k = 0; k < V; ++k) apply_weight(terms[k], weight[k], /*masked=*/true);
      } else {
        for (int k = 0; k < V; ++k) apply_weight(terms[k], weight[k], /*masked=*/false);
      }
    }
    if (Access::kGeneral && backward) {
      T upstream[V];
      upstream_of(i, upstream);
      for (int k = 0; k < V; ++k) scale_gradients(terms[k], upstream[k]);
    }
    T gradient[V];
    for (int k = 0; k < V; ++k) values[k] = terms[k].value, gradient[k] = terms[k].derivative;
    if (a.gradient.data) Access::store(a.shape, a.gradient, at, gradient);
    if (kForward && a.elements.data) Way::Values::store(a.shape, a.elements, at, values);
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

  // The terms of a vector, their gradients times scale.
  template <class L, int V>
  __device__ __forceinline__ void evaluate_all(Place at, const T (&recon)[V], const T (&target)[V], T scale,
                                               Terms<T, 0> (&terms)[V]) const {
    T pos_weight[V] = {};
    if constexpr (L::kHasPosWeight) load_factor(a.pos_weight, a.pos_weight_number, at, pos_weight);
    for (int k = 0; k < V; ++k) {
      const T own[1] = {pos_weight[k]};
      terms[k] = evaluate_element<L, typename Way::Math>(recon[k], target[k], own);
      scale_gradients(terms[k], scale);
    }
  }
};

// The types of recon that have kernels of their own, and their arithmetic; and every other.
using VectorTypes = Joined<FactorTypes, Types<uint8_t>>;  // of targets: the wider integers would cost registers
template <class Stored, class Math_, class T = float>
struct PackedRecon : PackedAs<Stored, T> {
  using Target = PackedAny<Stored, VectorTypes>;
  using Factor = PackedAny<Stored, FactorTypes>;
  using Values = Packed<T>;
  using Math = Math_;
};
template <class T>
struct GeneralRecon : GeneralAs<T> {
  using Target = AnyOf<StoredTypes>;
  using Factor = AnyOf<FactorTypes>;
  using Values = AnyOf<Types<T>>;
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
  packed &= is_packed(a.shape, a.elements, a.elements.type);
  const auto suits = [&](auto way) {
    using Way = typename decltype(way)::type;
    constexpr int8_t kType = kTypeCode<typename Way::Stored>;
    return packed && a.in_double == (sizeof(typename Way::T) == 8) && is_packed(a.shape, a.recon, kType) &&
           is_packed(a.shape, a.gradient, kType);
  };
  return visit(Likelihoods{}, a.likelihood, [&](auto likelihood) -> const char* {
    using Likelihood = typename decltype(likelihood)::type;
    if constexpr (kGoesByTiles<Likelihood>)
      return "counts and parameters go by tiles";  // tiles.cu
    else
      return choose<PackedRecons, GeneralRecon>(a.in_double, suits, [&](auto way) { return launch(likelihood, way); });
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
