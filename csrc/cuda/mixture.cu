// Log densities under mixtures: what comes before the rows, of each component what they need of it; and after them, the
// components' gradients from the sums over parts of the rows.
#include "cuda/mixture.cuh"
#include "math/gaussian.h"

namespace pyvae {
namespace cuda {
namespace {

// Where a component's feature is: in mean and scale; its problem, and there its cell, or its sums.
struct CellPlace {
  int64_t problem, cell;

  __device__ __forceinline__ CellPlace(const Mixture& a, int64_t group, int64_t component, int64_t feature)
      : problem(group), cell(component * a.features + feature) {
    if (a.elements) {
      problem = group * a.features + feature, cell = component;
    } else if (!a.tiling.wide) {
      cell = feature * a.components + component;
    }
  }
};

__device__ __forceinline__ bool is_absent(const Mixture& a, int64_t component) {  // of all groups
  return a.log_weight && a.log_weight[component] == -Real<double>::kInfinity;
}

// A warp for each component.
template <class T>
__global__ void __launch_bounds__(kThreads) mixture_prepare_kernel(const __grid_constant__ Mixture a) {
  constexpr int kWarps = kThreads / kWarp;
  const int64_t all = a.groups * a.components, own = int64_t(blockIdx.x) * kWarps + int(threadIdx.x) / kWarp;
  const int64_t i = own < all ? own : all - 1;
  const int lane = int(threadIdx.x) % kWarp;
  int64_t component;
  const int64_t group = divide(i, a.components, component);
  const bool absent = is_absent(a, i);
  const double weight = a.log_weight ? a.log_weight[i] : -log(double(a.components));
  const Clamp<T> clamp{T(a.low), T(a.high)};
  double peak = 0;
#pragma unroll 1
  for (int64_t l = lane; l < a.features; l += kWarp) {
    const T mean = static_cast<const T*>(a.mean)[i * a.features + l];
    const T scale = clamp(static_cast<const T*>(a.scale)[i * a.features + l]);
    const Width<T> width = visit(Scales{}, a.scale_kind, [&](auto form) { return decltype(form)::type::width(scale); });
    const CellPlace to(a, group, component, l);
    Cell<T>* const cells = static_cast<Cell<T>*>(a.cells) + to.problem * a.tiling.features * a.components;
    cells[to.cell] = absent ? Cell<T>{T(0), T(0)} : Cell<T>{mean, width.inverse};
    const T own_peak = log_peak(width.log_sigma);
    peak += double(own_peak);
    if (a.elements) {
      static_cast<T*>(a.peaks)[to.problem * a.components + component] =
          absent ? -Real<T>::kInfinity : T(weight) + own_peak;
    }
  }
  peak = warp_sum(peak);
  if (!a.elements && lane == 0) static_cast<T*>(a.peaks)[i] = absent ? -Real<T>::kInfinity : T(weight + peak);
}

// The sum over all parts of one number of each, [parts, each].
__device__ __forceinline__ double sum_of_parts(const Mixture& a, int64_t problem, int64_t number) {
  const int64_t each = a.tiling.sums_each(a.components);
  const double* const parts = a.sums + problem * a.tiling.parts * each + number;
  double sum = 0;
#pragma unroll 1
  for (int64_t part = 0; part < a.tiling.parts; ++part) sum += parts[part * each];
  return sum;
}

// A thread for each cell; the first threads sum a component's weight besides.
template <class T>
__global__ void __launch_bounds__(kThreads) mixture_finish_kernel(const __grid_constant__ Mixture a) {
  const int64_t own = int64_t(blockIdx.x) * kThreads + threadIdx.x, of_weights = 2 * a.tiling.features * a.components;
  int64_t component, feature;
  if (own < a.groups * a.components) {
    const int64_t group = divide(own, a.components, component);
    double sum = 0;
    for (int64_t l = 0; l < (a.elements ? a.features : 1); ++l)
      sum += sum_of_parts(a, CellPlace(a, group, component, l).problem, of_weights + component);
    if (a.grad_weight) a.grad_weight[own] = sum;
  }
  if (own >= a.groups * a.components * a.features) return;
  const int64_t i = divide(own, a.features, feature), group = divide(i, a.components, component);
  const CellPlace from(a, group, component, feature);
  const Moments<double> moments = {sum_of_parts(a, from.problem, of_weights + component),
                                   sum_of_parts(a, from.problem, from.cell),
                                   sum_of_parts(a, from.problem, from.cell + of_weights / 2)};
  const Clamp<T> clamp{T(a.low), T(a.high)};
  const T scale = static_cast<const T*>(a.scale)[own];
  const Width<T> width =
      visit(Scales{}, a.scale_kind, [&](auto form) { return decltype(form)::type::width(clamp(scale)); });
  // 0 times what a component of weight 0 is made of may be NaN.
  const bool absent = is_absent(a, i);
  static_cast<T*>(a.grad_mean)[own] = absent ? T(0) : T(moments.by_mean(double(width.inverse)));
  static_cast<T*>(a.grad_scale)[own] = absent ? T(0) : clamp.gradient(scale, T(moments.by_scale(double(width.slope))));
}

const char* launch_prepare(const Mixture& a, void* stream) {
  constexpr int kWarps = kThreads / kWarp;
  const int64_t blocks = (a.groups * a.components + kWarps - 1) / kWarps;
  return run(a.in_double ? mixture_prepare_kernel<double> : mixture_prepare_kernel<float>, a, blocks, stream);
}

const char* launch_finish(const Mixture& a, void* stream) {
  const int64_t blocks = (a.groups * a.components * a.features + kThreads - 1) / kThreads;
  return run(a.in_double ? mixture_finish_kernel<double> : mixture_finish_kernel<float>, a, blocks, stream);
}

}  // namespace

const char* launch_mixture_values(const Mixture& a, void* stream);
const char* launch_mixture_by_z(const Mixture& a, void* stream);
const char* launch_mixture_moments(const Mixture& a, void* stream);

const char* launch(const Mixture& a, void* stream) {
  switch (a.stage) {
    case MixtureStage::kPrepare:
      return launch_prepare(a, stream);
    case MixtureStage::kValues:
      return launch_mixture_values(a, stream);
    case MixtureStage::kByZ:
      return launch_mixture_by_z(a, stream);
    case MixtureStage::kMoments:
      return launch_mixture_moments(a, stream);
    case MixtureStage::kFinish:
      return launch_finish(a, stream);
  }
  return nullptr;
}

}  // namespace cuda
}  // namespace pyvae
