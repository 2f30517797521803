// Decoder side, forward: the loss, its terms, and the gradient by recon, in one launch.
#include "cuda/objective.cuh"

namespace pyvae {
namespace cuda {
namespace {

// All in one row: the first blocks sum the likelihood, the others the KL, and the last one to finish adds up.
template <int V, class Map>
__device__ __forceinline__ void sum_segments(const Objective& a, const Map& map) {
  using T = typename Map::T;
  const int64_t block = blockIdx.x, own = a.partition.blocks, blocks = own + a.divergence.partition.blocks;
  double sum = 0;
  const auto sink = [&sum](int64_t, const auto& values) { sum += double(vector_sum(values)); };
  if (block < own) {
    const Range range = part_of(a.partition, block);
    for_each_vector<V>(range.begin, range.end, map, sink);
  } else {
    const Range range = part_of(a.divergence.partition, block - own);
    if (a.divergence.source == Divergence::kGiven) {
      for (int64_t row = range.begin + threadIdx.x; row < range.end; row += kThreads) {
        sum += read(a.divergence.given, row);
      }
    } else {
      for_each_vector<kGeneralVector<T>>(range.begin, range.end, PosteriorDivergence<T>{a.divergence.posterior}, sink);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.workspace.partials[block] = sum;
  if (!is_last_block(a.workspace.ticket, blocks)) return;
  const double recon_term = block_sum(a.workspace.partials, own);
  const double kl_term = block_sum(a.workspace.partials + own, blocks - own);
  if (threadIdx.x == 0) write_terms(a, 0, recon_term, kl_term);
}

template <class Likelihood, class Way>
__global__ void __launch_bounds__(kThreads, Way::kBlocks) objective_kernel(const __grid_constant__ Objective a) {
  const NegativeLogLikelihood<Likelihood, Way, true> map{a, typename Way::T(a.factor), nullptr};
  if (a.partition.rows == 1) return sum_segments<Way::kVector>(a, map);
  map_and_reduce<Way::kVector, true>(a.partition, blockIdx.x, a.workspace, map, [&a](int64_t row, double sum) {
    write_terms(a, row, sum, read(a.divergence.given, row));
  });
}

}  // namespace

const char* launch(const Objective& a, void* stream) {
  return choose(a, /*packed=*/true, [&](auto likelihood, auto way) {
    const auto kernel = objective_kernel<typename decltype(likelihood)::type, typename decltype(way)::type>;
    return run(kernel, a, a.partition.blocks + a.divergence.partition.blocks, stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
