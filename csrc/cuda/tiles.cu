// Decoder side by tiles: the rows of a tile, and their sums.
#include "cuda/comparison.cuh"
#include "cuda/launch.cuh"
#include "cuda/tile.cuh"
#include "math/pair.h"

namespace pyvae {
namespace cuda {
namespace {

template <class Likelihood, class Way>
struct Tile : TileElements<Likelihood, Way> {
  using Base = TileElements<Likelihood, Way>;
  using T = typename Way::T;
  using Base::a, Base::at, Base::slots, Base::P, Base::V;
  using Base::Base;
  using typename Base::Row;
  using typename Base::RowSums;

  // All threads must call: of the rows from `first` on they take their own, or where there are no more, none.
  __device__ __forceinline__ void take_row(int64_t first, Pair<T>& total) const {
    const int64_t row_number = first + at.sub_row;
    const bool exists = row_number < at.end;
    Row row = this->row_of(exists ? row_number : at.first);
    if (a.softmax) row.shift = read_as<T>(a.log_library, row.row) - normalizer_of<T>(a, row.row);
    RowSums sums = {};
    uint32_t queued = 0;
    const int64_t end = exists ? at.last : 0;
    int slot = int(threadIdx.x) * V, shift = 0;
#pragma unroll 1
    for (int64_t column = at.first_column; column < end; column += at.column_step) {
      queued |= this->take(row, column, slot, sums) << shift;
      slot += kThreads * V, shift += V;
    }
    if constexpr (kQueues<Likelihood>) {
      this->take_queue(first, row, queued, sums);
      slot = int(threadIdx.x) * V;
#pragma unroll 1
      for (int64_t column = at.first_column; column < end; column += at.column_step) {
        this->give(row, column, slot, sums);
        slot += kThreads * V;
      }
    }
    total = sum(total, sums[0]);
    if (!a.row_parts) return;
    const int lanes = a.tiling.is_short() ? a.tiling.lanes : kWarp;
    const int64_t part = at.slice * a.tiling.warps() + at.lane / kWarp;
    T* const out = static_cast<T*>(a.row_parts) + (row_number * a.tiling.parts() + part) * a.row_kinds;
    const bool writes = exists && at.lane % kWarp == 0;
    for (int i = 0; i < 2 + P; ++i) {
      if (i >= 2 ? a.parameter_sums[i - 2] != ParameterSum::kPerRow : i == 0 ? !a.by_row : !a.softmax) continue;
      const T of_part = warp_sum(sums[i], lanes);
      if (writes) out[i] = of_part;
    }
  }

  __device__ __forceinline__ static Pair<T> sum(Pair<T> total, T more) {
    const Pair<T> both = pyvae::sum(total.high, more);
    return {both.high, total.low + both.low};
  }

  __device__ __forceinline__ void take_rows() const {
    for (int p = 0; p < P; ++p) {
      const T zeros[V] = {};
#pragma unroll 1
      for (int v = 0; v < a.tiling.vectors; ++v) {
        store_slots(slots.parameters[p] + (v * kThreads + int(threadIdx.x)) * V, zeros);
      }
    }
    Pair<T> total = {};
    double divergence = 0;
#pragma unroll 1
    for (int64_t row = at.first; row < at.end; row += at.rows_at_once) {
      take_row(row, total);
      if (!a.totals || !a.divergence.data || at.slice != 0 || at.lane != 0) continue;
      if (row + at.sub_row < at.end) divergence += read(a.divergence, row + at.sub_row);
    }
    add_columns();
    if (!a.totals) return;
    __shared__ T of_warps[kThreads / kWarp];
    const T of_warp = warp_sum(total.high + total.low);
    if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = of_warp;
    if (a.divergence.data) divergence = block_sum(divergence);
    __syncthreads();
    if (threadIdx.x > 0) return;
    double value = 0;
    for (const T one : of_warps) value += double(one);
    double* const out = static_cast<double*>(a.totals) + blockIdx.x;
    out[0] = value, out[gridDim.x] = divergence;
  }

  // Of the rows that are taken at once, half after half; then the first ones' threads write.
  __device__ __forceinline__ void add_columns() const {
    for (int p = 0; p < P; ++p) {
      if (!a.column_parts[p]) continue;
#pragma unroll 1
      for (int half = at.rows_at_once / 2; half > 0; half /= 2) {
        __syncthreads();
        if (at.sub_row >= half) continue;
#pragma unroll 1
        for (int v = 0; v < a.tiling.vectors; ++v) {
          T* const own = slots.parameters[p] + (v * kThreads + int(threadIdx.x)) * V;
          T other[V];
          load_slots(own + half * a.tiling.lanes * V, other);
          this->add_to_columns(own, T(1), other);
        }
      }
      if (at.sub_row > 0) continue;
      T* const out = static_cast<T*>(a.column_parts[p]) + at.group * a.shape.features;  // [features]
      const T* own = slots.parameters[p] + int(threadIdx.x) * V;
#pragma unroll 1
      for (int64_t column = at.first_column; column < at.last; column += at.column_step) {
        const int count = count_of<Way>(a.shape, column);
        T sums[V];
        load_slots(own, sums);
        own += kThreads * V;
        Way::store_plain(out + column, count, sums);
      }
    }
  }

  // Of the slice, by the block that is the last one to have added.
  __device__ __forceinline__ void finish_columns() const {
    __syncthreads();  // what all threads have stored is released by the first one
    if (!is_last_block(a.comparison.tickets + at.slice, a.tiling.groups)) return;
    for (int p = 0; p < P; ++p) {
      if (!a.column_parts[p]) continue;
      const T* const parts = static_cast<const T*>(a.column_parts[p]);  // [groups, features]
#pragma unroll 1
      for (int64_t column = at.before + threadIdx.x; column < at.last; column += kThreads) {
        write(a.column_sums[p], column, column_sum(a, parts, column));
      }
    }
  }
};

// The sums per column that are there, times the upstream gradient of all rows.
template <int P>
__device__ __forceinline__ void multiply_columns(const TiledObjective& a) {
  const double upstream = read(a.upstream, 0);
  for (int p = 0; p < P; ++p) {
    const Result& sums = a.column_sums[p];
    if (!sums.data) continue;
    const PerRow before = {sums.data, sums.in_double, 1};
#pragma unroll 1
    for (int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x; column < a.shape.features;
         column += int64_t(gridDim.x) * kThreads) {
      write(sums, column, read(before, column) * upstream);
    }
  }
}

// A second parameter wants more registers than three blocks leave, and so does a queue beside other types than float,
// or of means, whose logs are taken.
template <class Likelihood, class Way>
constexpr bool kIsLarge =
    Likelihood::kParameters > 1 || (kQueues<Likelihood> && (!Way::kPlain || !Likelihood::kLogMean));
template <class Likelihood, class Way>
constexpr int kBlocks = kIsLarge<Likelihood, Way> && Way::kTileBlocks > 2 ? 2 : Way::kTileBlocks;
template <class Likelihood, class Way>
constexpr int kAgainBlocks = Way::kTileBlocks > 2 ? 2 : Way::kTileBlocks;

template <class Likelihood, class Way>
__global__ void __launch_bounds__(kThreads, kBlocks<Likelihood, Way>)
    tile_kernel(const __grid_constant__ TiledObjective a) {
  __shared__ typename Tile<Likelihood, Way>::Slots slots;
  Tile<Likelihood, Way>(a, slots).take_rows();
}

// Sums per column that were made for an upstream gradient of 1: multiplied, or made again. A kernel of its own, since
// the other one has no register left.
template <class Likelihood, class Way>
__global__ void __launch_bounds__(kThreads, kAgainBlocks<Likelihood, Way>)
    again_kernel(const __grid_constant__ TiledObjective a) {
  if (!do_rows_differ(a.comparison)) return multiply_columns<Likelihood::kParameters>(a);
  __shared__ typename Tile<Likelihood, Way>::Slots slots;
  const Tile<Likelihood, Way> tile(a, slots);
  tile.take_rows();
  tile.finish_columns();
}

}  // namespace

const char* launch_tiles(const TiledObjective& a, void* stream) {
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) -> const char* {
    using Likelihood = typename decltype(tag)::type;
    if constexpr (!kGoesByTiles<Likelihood>) {
      return "a likelihood without parameters goes element by element";  // objective.cu
    } else {
      return choose_rows(a, [&](auto way, const TiledObjective& call) {
        using Way = typename decltype(way)::type;
        if constexpr (Likelihood::kParameters > 0) {
          if (a.comparison.differ) return run(again_kernel<Likelihood, Way>, call, a.tiling.blocks(), stream);
        }
        return run(tile_kernel<Likelihood, Way>, call, a.tiling.blocks(), stream);
      });
    }
  });
}

const char* launch(const TiledObjective& a, void* stream) {
  return a.stage == Stage::kPrepare ? launch_prepare(a, stream)
         : a.stage == Stage::kTiles ? launch_tiles(a, stream)
                                    : launch_finish(a, stream);
}

}  // namespace cuda
}  // namespace pyvae
