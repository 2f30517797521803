// Encoder side, as functors for the skeleton in reduce.cuh. Access is Packed<type> or Any.
#pragma once

#include "cuda/noise.cuh"
#include "cuda/reduce.cuh"
#include "math/gaussian.h"

namespace pyvae {
namespace cuda {

// z = mu + sigma eps; value: the divergence
template <class Scale, class Access, class T_>
struct Sample {
  using T = T_;
  const LatentForward& a;
  uint64_t key;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    const typename Access::Place at = Access::place(a.shape, i);
    T mu[V], scale[V];
    Access::load(a.shape, a.mu, at, mu);
    Access::load(a.shape, a.scale, at, scale);
    if (a.z.data) {
      T z[V];
      if (Access::kGeneral && a.eps.data) {
        Access::load(a.shape, a.eps, at, z);
        for (int k = 0; k < V; ++k) z[k] = mu[k] + Scale::sigma(scale[k]) * z[k];
      } else {
        draw<Access::kGeneral>(key, a.first_index + uint64_t(i), z);
        for (int k = 0; k < V; ++k) z[k] = fma(Scale::sigma(scale[k]), z[k], mu[k]);
      }
      Access::store(a.shape, a.z, at, z);
    }
    for (int k = 0; k < V; ++k) values[k] = T(0);
    if (a.kl.data) {
      for (int k = 0; k < V; ++k) values[k] = fma(T(0.5) * mu[k], mu[k], Scale::divergence(scale[k]));
    }
  }
};

// d/dmu = g_z + g_kl mu,  d/ds = g_z eps dsigma/ds + g_kl dKL/ds
template <class Scale, class Access, class T_>
struct SampleGradient {
  using T = T_;
  const LatentBackward& a;
  uint64_t key;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&)[V]) const {
    const typename Access::Place at = Access::place(a.shape, i);
    T scale[V], grad_mu[V], grad_scale[V];
    Access::load(a.shape, a.scale, at, scale);
    for (int k = 0; k < V; ++k) grad_mu[k] = grad_scale[k] = T(0);
    if (a.grad_z.data) {
      T eps[V];
      Access::load(a.shape, a.grad_z, at, grad_mu);
      if (Access::kGeneral && a.eps.data) {
        Access::load(a.shape, a.eps, at, eps);
      } else {
        draw<Access::kGeneral>(key, a.first_index + uint64_t(i), eps);
      }
      for (int k = 0; k < V; ++k) {
        grad_scale[k] = grad_mu[k] * eps[k] * Scale::sigma_derivative(scale[k], Scale::sigma(scale[k]));
      }
    }
    if (a.grad_kl.data) {
      T mu[V];
      Access::load(a.shape, a.mu, at, mu);
      T grad_kl[V];
      rows_of<!Access::kGeneral>(a.grad_kl, a.shape.features, i, grad_kl);
      for (int k = 0; k < V; ++k) {
        grad_mu[k] = fma(grad_kl[k], mu[k], grad_mu[k]);
        grad_scale[k] = fma(grad_kl[k], Scale::divergence_derivative(scale[k]), grad_scale[k]);
      }
    }
    Access::store(a.shape, a.grad_mu, at, grad_mu);
    Access::store(a.shape, a.grad_scale, at, grad_scale);
  }
};

}  // namespace cuda
}  // namespace pyvae
