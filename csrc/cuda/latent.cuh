// Encoder side, as functors for the skeleton in reduce.cuh.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/noise.cuh"
#include "cuda/reduce.cuh"
#include "math/gaussian.h"
#include "math/pair.h"

namespace pyvae {
namespace cuda {

// Several samples, clamping, priors and the divergence of each element are for the general kernels alone, which find
// out at run time what a call has; the packed ones, which take the usual calls, are compiled without.

template <class T>
__device__ __forceinline__ Clamp<T> clamp_of(const LatentOperands& a) {
  return {T(a.low), T(a.high)};
}

// Blocks a multiprocessor of the kernels over this scale: `general` of the general ones.
template <class Scale, class Way>
constexpr int blocks_of(int general) {
  if (!Way::Access::kGeneral) return Way::kBlocks;
  return Scale::kLongPrior ? kLongPriorBlocks : general;
}

// z, and as value the divergence
template <class Scale, class Way>
struct Sample {
  using T = typename Way::T;
  using Access = typename Way::Access;
  const LatentForward& a;
  uint64_t seed;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    const typename Access::Place at = Access::place(a.shape, i);
    T mu[V], scale[V];
    Access::load(a.shape, a.mu, at, mu);
    Access::load(a.shape, a.scale, at, scale);
    if (Access::kGeneral && a.is_clamped()) {
      for (int k = 0; k < V; ++k) scale[k] = clamp_of<T>(a)(scale[k]);
    }
    T sigma[V];
    if (Scale::kModerate > 0 && is_moderate(scale)) {
      evaluate<true>(mu, scale, sigma, values);
    } else {
      evaluate<false>(mu, scale, sigma, values);
    }
    if constexpr (Access::kGeneral) {
      if (a.prior_mean.data) {
        T prior_mean[V], prior_scale[V];
        Access::load(a.shape, a.prior_mean, at, prior_mean);
        Access::load(a.shape, a.prior_scale, at, prior_scale);
        for (int k = 0; k < V; ++k)
          values[k] = Posterior<Scale>::divergence(mu[k], scale[k], prior_mean[k], Scale::of_prior(prior_scale[k]));
      }
      if (a.elements.data) Access::store(a.shape, a.elements, at, values);
    }
    if (!a.z.data) return;
    T z[V];
    if constexpr (Access::kGeneral) {
#pragma unroll 1
      for (int64_t sample = 0; sample < a.samples; ++sample) {
        if (a.eps.data) {
          Access::load(a.shape, a.eps, at, z, V, sample * a.eps_step);
        } else {
          draw<true>(seed, uint64_t(sample), a.first_index + uint64_t(i), z);
        }
        for (int k = 0; k < V; ++k) {
          z[k] = a.eps.data ? Posterior<Scale>::template sample<false>(mu[k], sigma[k], z[k])
                            : Posterior<Scale>::template sample<true>(mu[k], sigma[k], z[k]);
        }
        Access::store(a.shape, a.z, at, z, V, sample * a.z_step);
      }
    } else {
      draw<false>(seed, 0, a.first_index + uint64_t(i), z);
      for (int k = 0; k < V; ++k) z[k] = Posterior<Scale>::template sample<true>(mu[k], sigma[k], z[k]);
      Access::store(a.shape, a.z, at, z);
    }
  }

 private:
  // Of all elements of the vector: one branch, which warps of usual posteriors take together.
  template <int V>
  static __device__ __forceinline__ bool is_moderate(const T (&scale)[V]) {
    bool moderate = true;  // not where one of them is NaN
    for (int k = 0; k < V; ++k) moderate &= absolute(scale[k]) <= T(Scale::kModerate);
    return moderate;
  }

  template <bool kModerate, int V>
  __device__ __forceinline__ void evaluate(const T (&mu)[V], const T (&scale)[V], T (&sigma)[V], T (&values)[V]) const {
    for (int k = 0; k < V; ++k) sigma[k] = Scale::template sigma<kModerate>(scale[k]);
    for (int k = 0; k < V; ++k) values[k] = T(0);
    const bool wanted = a.kl.data || (Way::Access::kGeneral && a.elements.data);
    if (!wanted || (Way::Access::kGeneral && a.prior_mean.data)) return;
    for (int k = 0; k < V; ++k) values[k] = Posterior<Scale>::template divergence<kModerate>(mu[k], scale[k]);
  }
};

template <class Scale, class Way>
struct SampleGradient {
  using T = typename Way::T;
  using Access = typename Way::Access;
  const LatentBackward& a;
  uint64_t seed;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&)[V]) const {
    const typename Access::Place at = Access::place(a.shape, i);
    T scale[V], grad_mu[V], grad_scale[V];
    Access::load(a.shape, a.scale, at, scale);
    T given[V];
    if (Access::kGeneral && a.is_clamped()) {
      for (int k = 0; k < V; ++k) given[k] = scale[k], scale[k] = clamp_of<T>(a)(scale[k]);
    }
    for (int k = 0; k < V; ++k) grad_mu[k] = grad_scale[k] = T(0);
    if (a.grad_z.data) sum_samples(i, at, scale, grad_mu, grad_scale);
    if (a.grad_kl.data || (Access::kGeneral && a.grad_elements.data)) {
      T mu[V], grad_kl[V];
      Access::load(a.shape, a.mu, at, mu);
      if (Access::kGeneral && a.grad_elements.data) {
        Access::load(a.shape, a.grad_elements, at, grad_kl);
      } else {
        rows_of<!Access::kGeneral>(a.grad_kl, a.shape.features, i, grad_kl);
      }
      if (Access::kGeneral && a.prior_mean.data) {
        add_from_prior(at, mu, scale, grad_kl, grad_mu, grad_scale);
      } else {
        for (int k = 0; k < V; ++k) {
          const PosteriorGradient<T> sample = {grad_mu[k], grad_scale[k]};
          const auto gradient = Posterior<Scale>::divergence_gradient(mu[k], scale[k], grad_kl[k], sample);
          grad_mu[k] = gradient.mu, grad_scale[k] = gradient.scale;
        }
      }
    }
    if (Access::kGeneral && a.is_clamped()) {
      for (int k = 0; k < V; ++k) grad_scale[k] = clamp_of<T>(a).gradient(given[k], grad_scale[k]);
    }
    Access::store(a.shape, a.grad_mu, at, grad_mu);
    Access::store(a.shape, a.grad_scale, at, grad_scale);
  }

 private:
  // The samples' gradients, summed from the first to the last.
  template <int V>
  __device__ __forceinline__ void sum_samples(int64_t i, typename Access::Place at, const T (&scale)[V],
                                              T (&grad_mu)[V], T (&grad_scale)[V]) const {
    T grad_z[V], eps[V];
    if constexpr (!Access::kGeneral) {
      Access::load(a.shape, a.grad_z, at, grad_z);
      draw<false>(seed, 0, a.first_index + uint64_t(i), eps);
      for (int k = 0; k < V; ++k) {
        const auto gradient = Posterior<Scale>::sample_gradient(scale[k], eps[k], grad_z[k]);
        grad_mu[k] = gradient.mu, grad_scale[k] = gradient.scale;
      }
    } else {
      T mu_low[V], scale_low[V];  // what the sums leave out
      for (int k = 0; k < V; ++k) mu_low[k] = scale_low[k] = T(0);
#pragma unroll 1
      for (int64_t sample = 0; sample < a.samples; ++sample) {
        Access::load(a.shape, a.grad_z, at, grad_z, V, sample * a.grad_z_step);
        if (a.eps.data) {
          Access::load(a.shape, a.eps, at, eps, V, sample * a.eps_step);
        } else {
          draw<true>(seed, uint64_t(sample), a.first_index + uint64_t(i), eps);
        }
        for (int k = 0; k < V; ++k) {
          const auto gradient = Posterior<Scale>::sample_gradient(scale[k], eps[k], grad_z[k]);
          Pair<T> by_mu = {grad_mu[k], mu_low[k]}, by_scale = {grad_scale[k], scale_low[k]};
          add(by_mu, gradient.mu), add(by_scale, gradient.scale);
          grad_mu[k] = by_mu.high, mu_low[k] = by_mu.low, grad_scale[k] = by_scale.high, scale_low[k] = by_scale.low;
        }
      }
      for (int k = 0; k < V; ++k) {
        grad_mu[k] = rounded(Pair<T>{grad_mu[k], mu_low[k]});
        grad_scale[k] = rounded(Pair<T>{grad_scale[k], scale_low[k]});
      }
    }
  }

  // The divergence's gradient, added to the sample's, and the prior's own.
  template <int V>
  __device__ __forceinline__ void add_from_prior(typename Access::Place at, const T (&mu)[V], const T (&scale)[V],
                                                 const T (&grad_kl)[V], T (&grad_mu)[V], T (&grad_scale)[V]) const {
    T mean[V], prior_scale[V];
    Access::load(a.shape, a.prior_mean, at, mean);
    Access::load(a.shape, a.prior_scale, at, prior_scale);
    for (int k = 0; k < V; ++k) {
      const PosteriorGradient<T> sample = {grad_mu[k], grad_scale[k]};
      const auto prior = Scale::of_prior(prior_scale[k]);
      const auto gradient = Posterior<Scale>::divergence_gradient(mu[k], scale[k], mean[k], prior, grad_kl[k], sample);
      grad_mu[k] = gradient.posterior.mu, grad_scale[k] = gradient.posterior.scale;
      mean[k] = gradient.prior.mean, prior_scale[k] = gradient.prior.scale;
    }
    if (!a.grad_prior_mean.data) return;
    Access::store(a.shape, a.grad_prior_mean, at, mean);
    Access::store(a.shape, a.grad_prior_scale, at, prior_scale);
  }
};

// Launches the kernel for a call's scale and types, launch(Tag<scale>(), Tag<way>()). `packed(type)`: whether vectors
// of that type can follow the operands which only one of the directions has.
template <class Packed, class Launch>
const char* choose(const LatentOperands& a, const Packed& packed, const Launch& launch) {
  using Ways =
      Types<PackedAs<float, float>, PackedAs<BFloat16, float>, PackedAs<Half, float>, PackedAs<double, double>>;
  const auto suits = [&](auto way) {
    constexpr int8_t kType = kTypeCode<typename decltype(way)::type::Stored>;
    const bool usual = !a.eps.data && !a.is_clamped() && !a.prior_mean.data && !a.elements.data &&
                       !a.grad_elements.data && a.samples == 1;
    return usual && a.first_index % 4 == 0 && is_packed(a.shape, a.mu, kType) && is_packed(a.shape, a.scale, kType) &&
           packed(kType);
  };
  return visit(Scales{}, a.scale_kind, [&](auto scale) {
    return choose<Ways, GeneralAs>(a.in_double, suits, [&](auto way) { return launch(scale, way); });
  });
}

}  // namespace cuda
}  // namespace pyvae
