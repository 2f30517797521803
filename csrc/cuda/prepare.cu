// Decoder side by tiles, first stage: of a softmax, log sum exp of the scores of each row, or of each part of one, as
// torch's NaN where a score is NaN or inf; and what a likelihood prepares of its first parameter.
#include "cuda/launch.cuh"
#include "cuda/tiles.cuh"

namespace pyvae {
namespace cuda {
namespace {

// The largest number that the scores seen so far are compared with, and the sum of e^(score - largest).
template <class T>
struct LogSum {
  T largest, sum;

  // Of what `lanes` neighbors have seen. All lanes of a warp must call.
  __device__ __forceinline__ LogSum of_neighbors(int lanes) const {
    const T all = warp_max(largest, lanes);
    return {all, warp_sum(sum * Counting::exp_score(largest - all), lanes)};
  }
};

// The block's part of its rows.
template <class Way>
__device__ __forceinline__ void normalize(const TiledObjective& a) {
  using T = typename Way::T;
  constexpr int kVectors = 2, V = kTileVector;        // vectors at a time: the sum is rescaled once for both
  constexpr T kLowest = T(-2) / Real<T>::kMinNormal;  // finite, so that e^(-inf - lowest) is 0
  const NormalizerTiling& tiling = a.normalizer_tiling;
  const int lane = int(threadIdx.x) & (tiling.lanes - 1), sub_row = int(threadIdx.x) / tiling.lanes;
  const int64_t block = int64_t(blockIdx.x) / tiling.parts, part = int64_t(blockIdx.x) - block * tiling.parts;
  const int64_t row = block * tiling.rows_at_once() + sub_row;
  const int64_t last = (part + 1) * tiling.length < a.shape.features ? (part + 1) * tiling.length : a.shape.features;
  const int64_t end = row < a.shape.rows ? last : 0;
  const auto scores_of_row = Way::row_of(a.shape, a.recon, row);
  LogSum<T> seen = {kLowest, 0};
#pragma unroll 1
  for (int64_t column = part * tiling.length + lane * V; column < end; column += tiling.lanes * V * kVectors) {
    T scores[kVectors][V];
    PYVAE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t here = column + v * tiling.lanes * V;
      for (int k = 0; k < V; ++k) scores[v][k] = -Real<T>::kInfinity;
      if (here >= end) continue;
      const int count = count_of<Way>(a.shape, here);
      Way::template load<FloatingTypes>(a.shape, a.recon, scores_of_row, here, count, scores[v]);
      for (int k = 1; k < V; ++k) {
        if (k >= count) scores[v][k] = -Real<T>::kInfinity;
      }
    }
    T largest = seen.largest;
    for (auto& vector : scores) {
      for (const T score : vector) largest = larger_of(largest, score);
    }
    T sum = seen.sum * Counting::exp_score(seen.largest - largest);
    for (auto& vector : scores) {
      for (const T score : vector) sum += Counting::exp_score(score - largest);
    }
    seen = {largest, sum};
  }
  T* const out = static_cast<T*>(a.normalizers) + row * tiling.parts + part;
  if (tiling.lanes <= kWarp) {
    seen = seen.of_neighbors(tiling.lanes);
    if (lane == 0 && row < a.shape.rows) *out = seen.largest + log(seen.sum);
    return;
  }
  __shared__ LogSum<T> of_warps[kThreads / kWarp];
  seen = seen.of_neighbors(kWarp);
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = seen;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  seen = threadIdx.x < kThreads / kWarp ? of_warps[threadIdx.x] : LogSum<T>{kLowest, 0};
  seen = seen.of_neighbors(kWarp);
  if (threadIdx.x == 0) *out = seen.largest + log(seen.sum);
}

// What the likelihood makes of its first parameter, of which all rows have the same.
template <class Way>
__device__ __forceinline__ void prepare_columns(const TiledObjective& a, int64_t block) {
  using T = typename Way::T;
  constexpr int V = kTileVector;
  const int64_t column = (block * kThreads + threadIdx.x) * V;
  if (column >= a.shape.features) return;
  const int count = count_of<Way>(a.shape, column);
  const auto row = Way::row_of(a.shape, a.parameters[0], 0);
  T parameter[V];
  Way::template load_parameter<FloatingTypes>(a.shape, a.parameters[0], row, column, count, parameter);
  visit(Likelihoods{}, a.likelihood, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    constexpr int F = Likelihood::kFirst;
    if constexpr (F > 0) {
      T own[F][V];
      for (int k = 0; k < V; ++k) {
        T one[F];
        Likelihood::template prepare_first<Counting>(parameter[k], one);
        for (int n = 0; n < F; ++n) own[n][k] = one[n];
      }
      T* const out = static_cast<T*>(a.prepared) + column;  // [F, features]
      for (int n = 0; n < F; ++n) Way::store_plain(out + n * a.shape.features, count, own[n]);
    }
  });
}

__device__ __host__ __forceinline__ int64_t normalizer_blocks(const TiledObjective& a) {
  const int64_t at_once = a.normalizer_tiling.rows_at_once();
  return a.normalizers ? (a.shape.rows + at_once - 1) / at_once * a.normalizer_tiling.parts : 0;
}

template <class Way>
__global__ void __launch_bounds__(kThreads, kLongBlocks<typename Way::T>)
    prepare_kernel(const __grid_constant__ TiledObjective a) {
  const int64_t own = normalizer_blocks(a);
  if (blockIdx.x < own) return normalize<Way>(a);
  prepare_columns<Way>(a, blockIdx.x - own);
}

}  // namespace

const char* launch_prepare(const TiledObjective& a, void* stream) {
  constexpr int kColumns = kThreads * kTileVector;
  const int64_t columns = a.prepared ? (a.shape.features + kColumns - 1) / kColumns : 0;
  return choose_rows(a, [&](auto way, const TiledObjective& call) {
    return run(prepare_kernel<typename decltype(way)::type>, call, normalizer_blocks(a) + columns, stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
