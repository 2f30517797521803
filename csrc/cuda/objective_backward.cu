// Decoder side, backward: the upstream gradient, decided and applied on the device. Where it is 1, as it is in most
// training steps, the forward pass has already written the gradient and nothing is left to do.
#include "cuda/comparison.cuh"
#include "cuda/objective.cuh"

namespace pyvae {
namespace cuda {
namespace {

// Whether all rows have one upstream gradient.
PYVAE_HD bool is_scalar(const ObjectiveBackward& a) { return a.grad_loss.stride == 0 && a.grad_recon.stride == 0; }

__device__ __forceinline__ double upstream(const ObjectiveBackward& a, int64_t row) {
  return read(a.grad_loss, row) + read(a.grad_recon, row);
}

// The KL's upstream gradient; d loss / d KL = beta, per row and for all of them.
__device__ __forceinline__ double to_kl(const ObjectiveBackward& a, int64_t row) {
  const double beta =
      a.objective.beta_tensor.data ? a.objective.beta * read(a.objective.beta_tensor, 0) : a.objective.beta;
  return a.objective.mean * kl_upstream(read(a.grad_loss, row), read(a.grad_kl, row), beta);
}

// It, or the gradients of the posterior that the KL comes from, shared among all threads of the launch.
template <class T>
__device__ __forceinline__ void write_to_kl(const ObjectiveBackward& a) {
  const LatentOperands& posterior = a.objective.divergence.posterior;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x, threads = int64_t(gridDim.x) * kThreads;
  const int64_t rows = a.to_kl.data ? a.batch : 0;
  for (int64_t row = first; row < rows; row += threads) write(a.to_kl, row, to_kl(a, row));
  const int64_t elements = posterior.grad_mu.data ? posterior.shape.rows * posterior.shape.features : 0;
#pragma unroll 1
  for (int64_t i = first; i < elements; i += threads) {
    T mu[1], scale[1];
    AnyOf<FactorTypes>::load(posterior.shape, posterior.mu, i, mu);
    AnyOf<FactorTypes>::load(posterior.shape, posterior.scale, i, scale);
    int64_t column;
    const T upstream = T(to_kl(a, divide(i, posterior.shape.features, column)));
    visit(Scales{}, posterior.scale_kind, [&](auto form) {
      using Scale = typename decltype(form)::type;
      const auto gradient = Posterior<Scale>::divergence_gradient(mu[0], scale[0], upstream);
      mu[0] = gradient.mu, scale[0] = gradient.scale;
    });
    AnyOf<FactorTypes>::store(posterior.shape, posterior.grad_mu, i, mu);
    AnyOf<FactorTypes>::store(posterior.shape, posterior.grad_scale, i, scale);
  }
}

// Whether there is nothing to do; `wanted`: a gradient is.
__device__ __forceinline__ bool is_done(const ObjectiveBackward& a, bool wanted) {
  return !wanted || (a.done_if_one && is_scalar(a) && upstream(a, 0) == 1);
}

template <class Likelihood, class Way>
constexpr int kAnewBlocks =
    sizeof(typename Way::T) == 8 && Way::kGradientBlocks > kDoubleGradientBlocks ? kDoubleGradientBlocks
    : kTakesPosWeight<Likelihood> && Way::kGradientBlocks > kLargeGradientBlocks ? kLargeGradientBlocks
                                                                                 : Way::kGradientBlocks;

// The gradient anew, from the inputs.
template <class Likelihood, class Way>
__global__ void __launch_bounds__(kThreads, kAnewBlocks<Likelihood, Way>)
    objective_gradient_kernel(const __grid_constant__ ObjectiveBackward a) {
  using T = typename Way::T;
  write_to_kl<T>(a);
  if (is_done(a, a.objective.partition.blocks > 0)) return;
  const bool scalar = is_scalar(a);
  const T factor = T(scalar ? a.objective.factor * upstream(a, 0) : a.objective.factor);
  const NegativeLogLikelihood<Likelihood, Way, false> map{a.objective, factor, scalar ? nullptr : &a};
  map_and_reduce<Way::kVector, false>(a.objective.partition, blockIdx.x, Workspace{}, map, [](int64_t, double) {});
}

// gradient *= upstream; kRows: they have one each
template <class Way, bool kRows>
struct Rescale {
  using T = typename Way::T;
  using Access = typename Way::Access;
  const ObjectiveBackward& a;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&)[V]) const {
    const Objective& o = a.objective;
    const typename Access::Place at = Access::place(o.shape, i);
    T gradient[V], loss[V], recon_term[V];
    Access::load(o.shape, o.gradient, at, gradient);
    if (kRows && o.shape.features % V == 0) {  // vectors of one row each
      rows_of<true>(a.grad_loss, o.shape.features, i, loss);
      rows_of<true>(a.grad_recon, o.shape.features, i, recon_term);
    } else {
      rows_of<false>(a.grad_loss, o.shape.features, i, loss);
      rows_of<false>(a.grad_recon, o.shape.features, i, recon_term);
    }
    for (int k = 0; k < V; ++k) gradient[k] *= loss[k] + recon_term[k];
    Access::store(o.shape, o.gradient, at, gradient);
  }
};

template <class T>
__device__ __forceinline__ void multiply(const Dense& values, T by) {
  T* const data = static_cast<T*>(values.data);
  const int64_t threads = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < values.count; i += threads) data[i] *= by;
}

template <class T>
__device__ __forceinline__ void multiply_rows(const ObjectiveBackward& a, const Dense& values) {
  constexpr int V = kRescaleVector<T>;
  T* const data = static_cast<T*>(values.data);
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x, threads = int64_t(gridDim.x) * kThreads;
  int64_t column;
  if (values.each % V == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
#pragma unroll 1
    for (int64_t i = first * V; i < values.count; i += threads * V) {
      const T by = T(upstream(a, divide(i, values.each, column)));
      T numbers[V];
      Vector<T, V>::load(data + i, numbers);
      for (int k = 0; k < V; ++k) numbers[k] *= by;
      Vector<T, V>::template store<true>(data + i, numbers);
    }
    return;
  }
#pragma unroll 1
  for (int64_t i = first; i < values.count; i += threads) {
    data[i] *= T(upstream(a, divide(i, values.each, column)));
  }
}

template <class Way, bool kRows>
__device__ __forceinline__ void rescale(const ObjectiveBackward& a) {
  if (!a.objective.gradient.data) return;
  map_and_reduce<kRescaleVector<typename Way::T>, false>(a.objective.partition, blockIdx.x, Workspace{},
                                                         Rescale<Way, kRows>{a}, [](int64_t, double) {});
}

template <class Way>
__global__ void __launch_bounds__(kThreads, Way::Access::kGeneral ? Way::kGradientBlocks : kRescaleBlocks)
    rescale_kernel(const __grid_constant__ ObjectiveBackward a) {
  write_to_kl<typename Way::T>(a);
  if (is_done(a, true)) return;
  for (const Dense& other : a.others) {
    if (!other.data) continue;
    other.in_double ? multiply(other, upstream(a, 0)) : multiply(other, float(upstream(a, 0)));
  }
  rescale<Way, false>(a);
}

// Where rows may have upstream gradients of their own.
template <class Way>
__global__ void __launch_bounds__(kThreads, kGeneralBlocks)
    rescale_rows_kernel(const __grid_constant__ ObjectiveBackward a) {
  write_to_kl<typename Way::T>(a);
  if (a.comparison.differ) compare_rows(a.comparison, [&](int64_t row) { return upstream(a, row); });
  for (const Dense& other : a.others) {
    if (!other.data) continue;
    other.in_double ? multiply_rows<double>(a, other) : multiply_rows<float>(a, other);
  }
  rescale<Way, true>(a);
}

}  // namespace

const char* launch(const ObjectiveBackward& a, void* stream) {
  // At least one block: the KL's gradient is written even where recon has no elements. And no more than there is room
  // for at once: where nothing is to be scaled, which the device finds out, the launch then costs next to nothing.
  const Objective& o = a.objective;
  int64_t most = o.partition.blocks;
  const auto see = [&most](int64_t elements) {
    const int64_t own = (elements + kSmallPart - 1) / kSmallPart;
    most = own > most ? own : most;
  };
  for (const Dense& other : a.others) see(other.count);
  most = a.comparison.blocks > most ? a.comparison.blocks : most;
  const LatentOperands& posterior = o.divergence.posterior;
  if (posterior.grad_mu.data) see(posterior.shape.rows * posterior.shape.features);
  const int64_t blocks = most < 1 ? 1 : most < kGoodBlocks ? most : kGoodBlocks;
  if (a.rescale) {
    const auto suits = [&](auto way) {
      return is_packed(o.shape, o.gradient, kTypeCode<typename decltype(way)::type::Stored>);
    };
    return choose<Types<PackedAs<float, float>, PackedAs<double, double>>, GeneralAs>(
        o.in_double, suits, [&](auto way) {
          using Way = typename decltype(way)::type;
          return run(is_scalar(a) ? rescale_kernel<Way> : rescale_rows_kernel<Way>, a, blocks, stream);
        });
  }
  const bool packed = is_packed(o.shape, a.grad_loss) && is_packed(o.shape, a.grad_recon);
  return choose(o, packed, [&](auto likelihood, auto way) {
    const auto kernel = objective_gradient_kernel<typename decltype(likelihood)::type, typename decltype(way)::type>;
    return run(kernel, a, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
