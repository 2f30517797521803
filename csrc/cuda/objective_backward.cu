// Decoder side, backward: the upstream gradient, decided and applied on the device. Where it is 1, as it is in most
// training steps, the forward pass has already written the gradient and nothing is left to do.
#include "cuda/objective.cuh"

namespace pyvae {
namespace cuda {
namespace {

// Whether all rows have one upstream gradient.
PYVAE_HD bool is_scalar(const ObjectiveBackward& a) { return a.grad_loss.stride == 0 && a.grad_recon.stride == 0; }

__device__ __forceinline__ double upstream(const ObjectiveBackward& a, int64_t row) {
  return read(a.grad_loss, row) + read(a.grad_recon, row);
}

// d loss / d KL = beta, per row and for all of them.
__device__ __forceinline__ void write_to_kl(const ObjectiveBackward& a) {
  if (!a.to_kl.data) return;
  const double beta =
      a.objective.beta_tensor.data ? a.objective.beta * read(a.objective.beta_tensor, 0) : a.objective.beta;
  for (int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x; row < a.batch;
       row += int64_t(gridDim.x) * kThreads) {
    const double from_loss = a.grad_loss.data ? beta * read(a.grad_loss, row) : 0;
    write(a.to_kl, row, a.objective.mean * (from_loss + read(a.grad_kl, row)));
  }
}

__device__ __forceinline__ bool is_done(const ObjectiveBackward& a) {
  return !a.objective.gradient.data || (a.done_if_one && is_scalar(a) && upstream(a, 0) == 1);
}

// The gradient anew, from the inputs.
template <class Likelihood, class Math, class ReconAccess, class TargetAccess, class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<ReconAccess>)
    objective_gradient_kernel(const __grid_constant__ ObjectiveBackward a) {
  write_to_kl(a);
  if (is_done(a)) return;
  const bool scalar = is_scalar(a);
  const T factor = T(scalar ? a.objective.factor * upstream(a, 0) : a.objective.factor);
  const NegativeLogLikelihood<Likelihood, Math, ReconAccess, TargetAccess, T> map{a.objective, factor,
                                                                                  scalar ? nullptr : &a};
  map_and_reduce<V, false>(a.objective.partition, blockIdx.x, Workspace{}, map, [](int64_t, double) {});
}

// gradient *= upstream
template <class Access, class T_>
struct Rescale {
  using T = T_;
  const ObjectiveBackward& a;

  template <int V>
  __device__ __forceinline__ void operator()(int64_t i, T (&)[V]) const {
    const Objective& o = a.objective;
    const typename Access::Place at = Access::place(o.shape, i);
    T gradient[V], loss[V], recon_term[V];
    Access::load(o.shape, o.gradient, at, gradient);
    rows_of<false>(a.grad_loss, o.shape.features, i, loss);
    rows_of<false>(a.grad_recon, o.shape.features, i, recon_term);
    for (int k = 0; k < V; ++k) gradient[k] *= loss[k] + recon_term[k];
    Access::store(o.shape, o.gradient, at, gradient);
  }
};

template <class Access, class T, int V>
__global__ void __launch_bounds__(kThreads) rescale_kernel(const __grid_constant__ ObjectiveBackward a) {
  write_to_kl(a);
  if (is_done(a)) return;
  map_and_reduce<V, false>(a.objective.partition, blockIdx.x, Workspace{}, Rescale<Access, T>{a},
                           [](int64_t, double) {});
}

const char* launch_rescale(const ObjectiveBackward& a, int64_t blocks, void* stream) {
  const Objective& o = a.objective;
  if (is_packed_output(o.shape, o.gradient, Type::kFloat)) {
    return run(rescale_kernel<Packed<float>, float, 4>, a, blocks, stream);
  }
  if (is_packed_output(o.shape, o.gradient, Type::kDouble)) {
    return run(rescale_kernel<Packed<double>, double, 2>, a, blocks, stream);
  }
  if (o.in_double) return run(rescale_kernel<Any, double, 2>, a, blocks, stream);
  return run(rescale_kernel<Any, float, 4>, a, blocks, stream);
}

template <class Likelihood>
const char* launch_gradient(const ObjectiveBackward& a, int64_t blocks, void* stream) {
  const Objective& o = a.objective;
#define PYVAE_LAUNCH(kRecon, Recon, kTarget, Target, Math, T, V)                                                     \
  if (is_scalar(a) && is_packed(o, Type::kRecon, Type::kTarget)) {                                                   \
    return run(objective_gradient_kernel<Likelihood, Math, Packed<Recon>, Packed<Target>, T, V>, a, blocks, stream); \
  }
  PYVAE_PACKED_TYPES(PYVAE_LAUNCH)
#undef PYVAE_LAUNCH
  if (o.in_double) return run(objective_gradient_kernel<Likelihood, Accurate, Any, Any, double, 2>, a, blocks, stream);
  return run(objective_gradient_kernel<Likelihood, Accurate, Any, Any, float, 4>, a, blocks, stream);
}

}  // namespace

const char* launch(const ObjectiveBackward& a, void* stream) {
  // At least one block: the KL's gradient is written even where recon has no elements.
  const int64_t blocks = a.objective.partition.blocks > 0 ? a.objective.partition.blocks : 1;
  if (a.rescale) return launch_rescale(a, blocks, stream);
  using Launch = const char* (*)(const ObjectiveBackward&, int64_t, void*);
#define PYVAE_ENTRY(Likelihood, name) launch_gradient<Likelihood>,
  static constexpr Launch launches[] = {PYVAE_LIKELIHOODS(PYVAE_ENTRY)};
#undef PYVAE_ENTRY
  return launches[a.objective.likelihood](a, blocks, stream);
}

}  // namespace cuda
}  // namespace pyvae
