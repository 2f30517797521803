// The skeleton of kernels that go element by element: they map a functor over a block's elements, write its outputs and
// sum its values.
//
// Sums run in T within a thread's vector, in double from there on, in an order that only the shape decides. Where a row
// has several blocks, the block that finishes last adds their sums: one launch, no float atomics.
#pragma once

#include "cuda/access.cuh"
#include "cuda/kernels.h"

namespace pyvae {
namespace cuda {

template <class T>
__device__ __forceinline__ T warp_sum(T value, int lanes = kWarp) {  // of each `lanes` neighbors; all 32 must call
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// The larger of two; NaN loses.
__device__ __forceinline__ float larger_of(float a, float b) { return __builtin_fmaxf(a, b); }
__device__ __forceinline__ double larger_of(double a, double b) { return __builtin_fmax(a, b); }

// Valid in every thread.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sums[kThreads / kWarp];
  value = warp_sum(value);
  __syncthreads();  // `sums` may still be read from the call before
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) total += sums[warp];
  return total;
}

__device__ __forceinline__ double block_sum(const double* values, int64_t count) {  // [count]
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += values[i];
  return block_sum(sum);
}

template <class T, int V>
__device__ __forceinline__ T vector_sum(const T (&values)[V]) {
  T tree[V];
  for (int i = 0; i < V; ++i) tree[i] = values[i];
  for (int width = V / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) tree[i] += tree[i + width];
  }
  return tree[0];
}

// Calls map(i, values) and then sink(i, values) for the elements [begin, end) of the index space, shared among the
// block's threads: in vectors that begin at multiples of V, and one by one at the ends. Loads are not issued ahead of
// their use: the arithmetic of the other warps is long enough to hide them.
template <int V, class Map, class Sink>
__device__ __forceinline__ void for_each_vector(int64_t begin, int64_t end, const Map& map, Sink sink) {
  using T = typename Map::T;
  const int64_t aligned_end = end / V * V;
  const int64_t aligned_begin = (begin + V - 1) / V * V < aligned_end ? (begin + V - 1) / V * V : aligned_end;
#pragma unroll 1
  for (int64_t i = aligned_begin + int64_t(threadIdx.x) * V; i < aligned_end; i += int64_t(kThreads) * V) {
    T values[V];
    map(i, values);
    sink(i, values);
  }
  // Of a range inside one vector, aligned_begin may lie before begin.
  const int64_t head_end = aligned_begin > begin ? aligned_begin : begin;
  const int64_t tail_begin = aligned_end > head_end ? aligned_end : head_end;
  const int64_t head = head_end - begin, tail = end - tail_begin;
  if (threadIdx.x < head + tail) {
    const int64_t i = threadIdx.x < head ? begin + threadIdx.x : tail_begin + (threadIdx.x - head);
    T values[1];
    map(i, values);
    sink(i, values);
  }
}

// Elements [begin, end).
struct Range {
  int64_t begin, end;
};

// Of one part of a row, the block's own.
__device__ __forceinline__ Range part_of(const Partition& p, int64_t block) {
  const int64_t row = block / p.parts, column = (block - row * p.parts) * p.length, end = column + p.length;
  return {row * p.features + column, row * p.features + (end < p.features ? end : p.features)};
}

// Of one span of short rows.
__device__ __forceinline__ Range span_of(const Partition& p, int64_t span) {
  const int64_t row = span * p.rows_per_span, end = row + p.rows_per_span;
  return {(row < p.rows ? row : p.rows) * p.features, (end < p.rows ? end : p.rows) * p.features};
}

// Lanes of a warp that add up one of `rows` sums: as many as let a block take them all at once.
__device__ __forceinline__ int lanes_for(int64_t rows) {
  int lanes = kWarp;
  while (lanes > 1 && lanes * rows > kThreads) lanes /= 2;
  return lanes;
}

// Sums of a span's rows, from their values in shared memory. emit(row, sum) is called by one thread per row.
template <class T, class Emit>
__device__ __forceinline__ void sum_span(const Partition& p, int64_t span, const T* values, Emit emit) {
  const int features = int(p.features);
  const int64_t first_row = span * p.rows_per_span, left = p.rows - first_row;
  const int rows = int(left < p.rows_per_span ? left : p.rows_per_span);
  const int lanes = lanes_for(p.rows_per_span), lane = threadIdx.x % lanes, at_once = kThreads / lanes;
  for (int base = 0; base < rows; base += at_once) {  // the same for all threads: they meet in warp_sum
    const int row = base + threadIdx.x / lanes;
    T sum = 0;
    if (row < rows) {
      for (int k = lane; k < features; k += lanes) sum += values[row * features + k];
    }
    const double total = warp_sum(double(sum), lanes);
    if (row < rows && lane == 0) emit(first_row + row, total);
  }
}

// atomicInc that releases what its thread has written before, and acquires what those that came before have released.
__device__ __forceinline__ unsigned count_up(unsigned* ticket, unsigned limit) {
#ifdef __CUDA_ARCH__
  unsigned before;
  asm volatile("atom.acq_rel.gpu.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(ticket), "r"(limit) : "memory");
  return before;
#else
  return atomicInc(ticket, limit);
#endif
}

// Whether this is the block that finishes last of `blocks`; what thread 0 of the others wrote before is visible to all
// threads then, those of the barrier included. Other threads' stores are results, and nobody's concern here.
__device__ __forceinline__ bool is_last_block(unsigned* ticket, int64_t blocks) {
  __shared__ bool last;
  if (threadIdx.x == 0) last = count_up(ticket, unsigned(blocks - 1)) == unsigned(blocks - 1);  // and back to 0
  __syncthreads();
  return last;
}

// Adds the parts of each row. `sum` is the block's own, `block` its number.
template <class Emit>
__device__ __forceinline__ void sum_parts(const Partition& p, int64_t block, const Workspace& workspace, double sum,
                                          Emit emit) {
  if (p.parts == 1) {
    if (threadIdx.x == 0) emit(block, sum);
    return;
  }
  if (threadIdx.x == 0) workspace.partials[block] = sum;
  if (!is_last_block(workspace.ticket, p.blocks)) return;
  if (p.rows == 1) {
    const double total = block_sum(workspace.partials, p.parts);
    if (threadIdx.x == 0) emit(0, total);
    return;
  }
  // Few lanes a row and many rows at once: what takes time here is waiting for a load, not their number.
  const int lanes = lanes_for(p.rows), lane = threadIdx.x % lanes, at_once = kThreads / lanes;
  for (int64_t base = 0; base < p.rows; base += at_once) {
    const int64_t row = base + threadIdx.x / lanes;
    const double* parts = workspace.partials + row * p.parts;  // [parts]
    double total = 0;
    if (row < p.rows) {
#pragma unroll 8
      for (int64_t part = lane; part < p.parts; part += lanes) total += parts[part];
    }
    total = warp_sum(total, lanes);
    if (row < p.rows && lane == 0) emit(row, total);
  }
}

// Maps the elements of a block and, if kSums and they are wanted, emits the sums of its rows: emit(row, sum), by one
// thread per row. Where rows are short their values pass through shared memory, so that vectors need not mind where
// rows begin.
template <int V, bool kSums, class Map, class Emit>
__device__ __forceinline__ void map_and_reduce(const Partition& p, int64_t block, const Workspace& workspace,
                                               const Map& map, Emit emit, bool wanted = true) {
  using T = typename Map::T;
  if constexpr (!kSums) {
#pragma unroll 1
    for (; block < p.blocks; block += gridDim.x) {  // once, unless fewer blocks were launched
      const Range range = part_of(p, block);
      for_each_vector<V>(range.begin, range.end, map, [](int64_t, const auto&) {});
    }
  } else {
    __shared__ alignas(16) T shared[kSpan + V];
    const bool short_rows = p.rows_per_span > 0;
    double sum = 0;
#pragma unroll 1
    for (int i = 0; i < p.spans_per_block; ++i) {  // once where rows are long
      const int64_t span = block * p.spans_per_block + i;
      const Range range = short_rows ? span_of(p, span) : part_of(p, block);
      const int64_t origin = range.begin / V * V;
      for_each_vector<V>(range.begin, range.end, map, [&sum, short_rows, origin](int64_t i, const auto& values) {
        constexpr int kCount = sizeof(values) / sizeof(T);  // V, or 1 at the ends
        if (short_rows) {
          Vector<T, kCount>::store(shared + (i - origin), values);
        } else {
          sum += double(vector_sum(values));
        }
      });
      if (short_rows && wanted) {
        __syncthreads();
        sum_span(p, span, shared + (range.begin - origin), emit);
        __syncthreads();  // before the next span overwrites them
      }
    }
    if (!short_rows && wanted) sum_parts(p, block, workspace, block_sum(sum), emit);
  }
}

}  // namespace cuda
}  // namespace pyvae
