// Log densities of posteriors, a Gaussian for each sample of the batch, of which z may hold several samples. All memory
// is contiguous: z [samples, groups, features], mean and scale [groups, features].
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "math/density.h"
#include "math/gaussian.h"
#include "math/pair.h"

namespace pyvae {
namespace cuda {
namespace {

template <class T, int V>
__device__ __forceinline__ void load(const void* from, int64_t i, T (&out)[V]) {
  Vector<T, V>::load(static_cast<const T*>(from) + i, out);
}
template <class T, int V>
__device__ __forceinline__ void store(void* to, int64_t i, const T (&in)[V]) {
  Vector<T, V>::template store<true>(static_cast<T*>(to) + i, in);
}

template <class T, int V>
__device__ __forceinline__ void widths_of(const PosteriorDensity& a, const T (&scale)[V], Width<T> (&widths)[V]) {
  const Clamp<T> clamp{T(a.low), T(a.high)};
  visit(Scales{}, a.scale_kind, [&](auto form) {
    for (int k = 0; k < V; ++k) widths[k] = decltype(form)::type::width(clamp(scale[k]));
  });
}

template <class T_>
struct Density {
  using T = T_;
  const PosteriorDensity& a;

  // Elements i and on of z.
  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&values)[V]) const {
    int64_t of_posterior;
    divide(i, a.groups * a.features, of_posterior);
    T z[V], mean[V], scale[V];
    Width<T> widths[V];
    load(a.z, i, z), load(a.mean, of_posterior, mean), load(a.scale, of_posterior, scale);
    widths_of(a, scale, widths);
    for (int k = 0; k < V; ++k)
      values[k] = with_square(standardized(z[k], mean[k], widths[k].inverse), log_peak(widths[k].log_sigma));
    if (a.elements) store(a.values, i, values);
  }
};

template <class T_>
struct DensityGradient {
  using T = T_;
  const PosteriorDensity& a;

  // Elements i and on of the posterior.
  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&)[V]) const {
    T mean[V], scale[V], z[V], r[V], grad[V];
    Width<T> widths[V];
    load(a.mean, i, mean), load(a.scale, i, scale);
    widths_of(a, scale, widths);
    Pair<T> first[V] = {}, second[V] = {}, weight[V] = {};
    const int64_t samples = a.rows / a.groups, each = a.groups * a.features;
#pragma unroll 1
    for (int64_t sample = 0; sample < samples; ++sample) {
      load(a.z, sample * each + i, z);
      if (a.elements) {
        load(a.upstream, sample * each + i, r);
      } else {
        rows_of<false>(PerRow{static_cast<const T*>(a.upstream) + sample * a.groups, sizeof(T) == 8, 1}, a.features, i,
                       r);
      }
      for (int k = 0; k < V; ++k) {
        const T y = standardized(z[k], mean[k], widths[k].inverse);
        Moments<T> own = {r[k], T(0), T(0)};
        own.add(r[k], y);
        add(first[k], own.first), add(second[k], own.second), add(weight[k], own.weight);
        grad[k] = add_by_z(r[k], y, widths[k].inverse, T(0));
      }
      store(a.grad_z, sample * each + i, grad);
    }
    if (!a.grad_mean) return;
    const Clamp<T> clamp{T(a.low), T(a.high)};
    T by_mean[V], by_scale[V];
    for (int k = 0; k < V; ++k) {
      const auto sum = [](const Pair<T>& pair) { return double(pair.high) + double(pair.low); };
      const Moments<double> moments = {sum(weight[k]), sum(first[k]), sum(second[k])};
      by_mean[k] = T(moments.by_mean(double(widths[k].inverse)));
      by_scale[k] = clamp.gradient(scale[k], T(moments.by_scale(double(widths[k].slope))));
    }
    store(a.grad_mean, i, by_mean), store(a.grad_scale, i, by_scale);
  }
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2) posterior_density_kernel(const __grid_constant__ PosteriorDensity a) {
  const auto emit = [&a](int64_t row, double sum) { static_cast<T*>(a.values)[row] = T(sum); };
  map_and_reduce<V, true>(a.partition, blockIdx.x, a.workspace, Density<T>{a}, emit, /*wanted=*/!a.elements);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    posterior_density_backward_kernel(const __grid_constant__ PosteriorDensity a) {
  map_and_reduce<V, false>(a.partition, blockIdx.x, Workspace{}, DensityGradient<T>{a}, [](int64_t, double) {});
}

template <class T>
const char* launch_of(const PosteriorDensity& a, void* stream) {
  constexpr int V = 16 / sizeof(T);
  bool packed = a.groups * a.features % V == 0;
  const void* const all[] = {
      a.z,      a.mean,      a.scale,     a.elements ? a.values : nullptr, a.elements ? a.upstream : nullptr,
      a.grad_z, a.grad_mean, a.grad_scale};
  for (const void* data : all) packed &= reinterpret_cast<uintptr_t>(data) % 16 == 0;
  const auto kernel = a.backward
                          ? packed ? posterior_density_backward_kernel<T, V> : posterior_density_backward_kernel<T, 1>
                      : packed ? posterior_density_kernel<T, V>
                               : posterior_density_kernel<T, 1>;
  return run(kernel, a, a.partition.blocks, stream);
}

}  // namespace

const char* launch(const PosteriorDensity& a, void* stream) {
  return a.in_double ? launch_of<double>(a, stream) : launch_of<float>(a, stream);
}

}  // namespace cuda
}  // namespace pyvae
