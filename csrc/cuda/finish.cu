// Decoder side by tiles, last stage: what the tiles have left in parts is added up, and derivatives by the log mean are
// taken through the softmax.
#include "cuda/launch.cuh"
#include "cuda/loss_terms.cuh"
#include "cuda/tiles.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Way>
struct Finish {
  using T = typename Way::T;
  static constexpr int V = kTileVector;
  const TiledObjective& a;
  const TilePlace at;

  // Sum `kind` of a row over its parts, in every lane. All lanes of a warp must call.
  template <class Sum>
  __device__ __forceinline__ Sum sum_of(int64_t row, int kind) const {
    const int parts = int(a.tiling.parts());
    const T* const of_row =
        static_cast<const T*>(a.row_parts) + row * parts * a.row_kinds + kind;  // [parts, row_kinds]
    if (a.finish_tiling.is_short()) return Sum(of_row[0]);
    Sum sum = 0;
#pragma unroll 1
    for (int part = int(threadIdx.x) % kWarp; part < parts; part += kWarp) sum += Sum(of_row[part * a.row_kinds]);
    return warp_sum(sum);
  }

  __device__ __forceinline__ void finish_row(int64_t row, bool exists) const {
    const int64_t of = exists ? row : at.first;
    if (at.slice == 0) {
      const auto give = [&](int kind, auto write_it) {
        const double sum = sum_of<double>(of, kind);
        if (exists && at.lane == 0) write_it(sum);
      };
      if (a.by_row && a.with_terms) give(0, [&](double sum) { write_terms(a, row, sum, read(a.divergence, row)); });
      if (a.library_gradient.data) give(1, [&](double sum) { write(a.library_gradient, row, scale_of(a, row) * sum); });
      for (int p = 0; p < kMaxParameters; ++p) {
        if (a.row_sums[p].data) give(2 + p, [&](double sum) { write(a.row_sums[p], row, scale_of(a, row) * sum); });
      }
    }
    if (!a.softmax || !a.gradient.data) return;
    // a_j = score_j - log sum exp(scores), so d a_j / d score_i = [i = j] - p_i, p = softmax: with d the derivatives by
    // a, d value / d score_i = d_i - p_i sum(d).
    const T sum = sum_of<T>(of, 1), normalizer = normalizer_of<T>(a, of),
            scale = T(a.factor) * (a.upstream.data ? read_as<T>(a.upstream, of) : T(1));
    const auto recon = Way::row_of(a.shape, a.recon, row);
    const auto waiting = Way::row_of(a.shape, a.waiting, row);
    const auto gradient = Way::row_of(a.shape, a.gradient, row);
    const int64_t end = exists ? at.last : 0;
#pragma unroll 1
    for (int64_t column = at.first_column; column < end; column += at.column_step) {
      const int count = count_of<Way>(a.shape, column);
      T scores[V], d[V];
      Way::template load<FloatingTypes>(a.shape, a.recon, recon, column, count, scores);
      Way::template load<Types<T>>(a.shape, a.waiting, waiting, column, count, d);
      if (sum != T(0)) {  // of a row that is left out as a whole nothing counts, not even a NaN among its scores
        for (int k = 0; k < V; ++k) d[k] = fma(-Counting::exp_score(scores[k] - normalizer), sum, d[k]);
      }
      for (int k = 0; k < V; ++k) d[k] *= scale;
      Way::template store<FloatingTypes>(a.shape, a.gradient, gradient, column, count, d);
    }
  }

  __device__ __forceinline__ void finish_columns() const {
    const int64_t features = a.shape.features, threads = int64_t(gridDim.x) * kThreads;
    for (int p = 0; p < kMaxParameters; ++p) {
      if (!a.column_sums[p].data) continue;
      const T* const parts = static_cast<const T*>(a.column_parts[p]);  // [groups, features]
#pragma unroll 1
      for (int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x; column < features; column += threads) {
        write(a.column_sums[p], column, column_sum(a, parts, column));
      }
    }
  }

  __device__ __forceinline__ void finish_terms() const {
    const int64_t blocks = a.tiling.blocks();
    const double* const totals = static_cast<const double*>(a.totals);  // [2, blocks]
    const double recon_term = block_sum(totals, blocks);
    const double kl_term = block_sum(totals + blocks, blocks) + read(a.divergence_sum, 0);
    if (threadIdx.x == 0) write_terms(a, 0, recon_term, kl_term);
  }
};

template <class Way>
__global__ void __launch_bounds__(kThreads, kLongBlocks<typename Way::T>)
    finish_kernel(const __grid_constant__ TiledObjective a) {
  const Finish<Way> finish{a, TilePlace(a.finish_tiling, a.shape)};
  if (blockIdx.x < a.finish_tiling.blocks() && a.row_parts) {
#pragma unroll 1
    for (int64_t row = finish.at.first; row < finish.at.end; row += finish.at.rows_at_once) {
      finish.finish_row(row + finish.at.sub_row, row + finish.at.sub_row < finish.at.end);
    }
  }
  finish.finish_columns();
  if (blockIdx.x == 0 && a.with_terms && !a.by_row) finish.finish_terms();
}

}  // namespace

const char* launch_finish(const TiledObjective& a, void* stream) {
  const int64_t by_columns = (a.shape.features + kThreads - 1) / kThreads,
                by_rows = a.row_parts ? a.finish_tiling.blocks() : 0;
  const int64_t blocks = by_rows > by_columns ? by_rows : by_columns;
  return choose_rows(a, [&](auto way, const TiledObjective& call) {
    return run(finish_kernel<typename decltype(way)::type>, call, blocks > 0 ? blocks : 1, stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
