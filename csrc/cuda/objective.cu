// Decoder side, forward: the loss, its terms, and the gradient by recon, in one launch.
#include "cuda/objective.cuh"

namespace pyvae {
namespace cuda {
namespace {

// loss = likelihood + beta KL of one row, from the sums of both.
__device__ __forceinline__ void write_terms(const Objective& a, int64_t row, double recon_term, double kl_term) {
  recon_term *= a.mean;
  kl_term *= a.mean;
  const double beta = a.beta_tensor.data ? a.beta * read(a.beta_tensor, 0) : a.beta;
  write(a.loss, row, recon_term + beta * kl_term);
  write(a.recon_term, row, recon_term);
  write(a.kl_term, row, kl_term);
}

// All in one row: the first blocks sum the likelihood, the others the KL, and the last one to finish adds up.
template <int V, class Map>
__device__ __forceinline__ void sum_segments(const Objective& a, const Map& map) {
  using T = typename Map::T;
  const int64_t block = blockIdx.x, own = a.partition.blocks, blocks = own + a.posterior.partition.blocks;
  double sum = 0;
  const auto sink = [&sum](int64_t, const auto& values) { sum += double(vector_sum(values)); };
  if (block < own) {
    const Range range = range_of(a.partition, block);
    for_each_vector<V>(range.begin, range.end, map, sink);
  } else {
    const Range range = range_of(a.posterior.partition, block - own);
    if (a.posterior.source == Divergence::kGiven) {
      for (int64_t row = range.begin + threadIdx.x; row < range.end; row += kThreads) {
        sum += read(a.posterior.given, row);
      }
    } else {
      for_each_vector<sizeof(T) == 4 ? 4 : 2>(range.begin, range.end, PosteriorDivergence<T>{a.posterior}, sink);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.workspace.partials[block] = sum;
  if (!is_last_block(a.workspace.ticket, blocks)) return;
  const double recon_term = block_sum(a.workspace.partials, own);
  const double kl_term = block_sum(a.workspace.partials + own, blocks - own);
  if (threadIdx.x == 0) write_terms(a, 0, recon_term, kl_term);
}

template <class Likelihood, class Math, class ReconAccess, class TargetAccess, class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<ReconAccess>)
    objective_kernel(const __grid_constant__ Objective a) {
  const NegativeLogLikelihood<Likelihood, Math, ReconAccess, TargetAccess, T> map{a, T(a.factor), nullptr};
  if (a.partition.rows == 1) return sum_segments<V>(a, map);
  map_and_reduce<V, true>(a.partition, blockIdx.x, a.workspace, map,
                          [&a](int64_t row, double sum) { write_terms(a, row, sum, read(a.posterior.given, row)); });
}

template <class Likelihood>
const char* launch_as(const Objective& a, void* stream) {
  const int64_t blocks = a.partition.blocks + a.posterior.partition.blocks;
#define PYVAE_LAUNCH(kRecon, Recon, kTarget, Target, Math, T, V)                                            \
  if (is_packed(a, Type::kRecon, Type::kTarget)) {                                                          \
    return run(objective_kernel<Likelihood, Math, Packed<Recon>, Packed<Target>, T, V>, a, blocks, stream); \
  }
  PYVAE_PACKED_TYPES(PYVAE_LAUNCH)
#undef PYVAE_LAUNCH
  if (a.in_double) return run(objective_kernel<Likelihood, Accurate, Any, Any, double, 2>, a, blocks, stream);
  return run(objective_kernel<Likelihood, Accurate, Any, Any, float, 4>, a, blocks, stream);
}

}  // namespace

const char* launch(const Objective& a, void* stream) {
  using Launch = const char* (*)(const Objective&, void*);
#define PYVAE_ENTRY(Likelihood, name) launch_as<Likelihood>,
  static constexpr Launch launches[] = {PYVAE_LIKELIHOODS(PYVAE_ENTRY)};
#undef PYVAE_ENTRY
  return launches[a.likelihood](a, stream);
}

}  // namespace cuda
}  // namespace pyvae
