// Decoder side by tiles: the elements of a tile, each of which is evaluated once, and whose results go to all that asks
// for them.
//
// Of counts, most are 0, and the formula of those is short. So a thread first takes its elements for zeros, and puts
// the others into its warp's queue; then the warp takes the queue, 32 at a time. What an element leaves for its own
// thread passes through shared memory, at the element's slot.
#pragma once

#include "cuda/tiles.cuh"

namespace pyvae {
namespace cuda {

// The multinomial's formula is shorter than a queue.
template <class Likelihood>
constexpr bool kQueues = Likelihood::kIsCount && !__is_same(Likelihood, Multinomial);

template <class T>
__device__ __forceinline__ void load_slots(const T* slots, T (&out)[kTileVector]) {
  Vector<T, kTileVector>::load(slots, out);
}
template <class T>
__device__ __forceinline__ void store_slots(T* slots, const T (&in)[kTileVector]) {
  Vector<T, kTileVector>::store(slots, in);
}

template <class Likelihood, class Way>
struct TileElements {
  using T = typename Way::T;
  static constexpr int P = Likelihood::kParameters, V = kTileVector;
  static constexpr int F = Likelihood::kFirst, N = P + (F > 0 ? F - 1 : 0);  // numbers that evaluate reads
  static constexpr int kVectors = most_tile_vectors(P, sizeof(T)), kSlots = kThreads * V * kVectors;

  // Of the block, in shared memory. Slot (v * kThreads + thread) * V + k is that of element k of the thread's vector v.
  struct Slots {
    alignas(16) T parameters[at_least_one(P)][P > 0 ? kSlots : V];  // derivatives by each, or their sum over the rows
    alignas(16) T derivatives[kQueues<Likelihood> ? kSlots : V];    // of a queued element first its log mean
    T values[kQueues<Likelihood> ? kThreads * V : 1];               // of queued elements, if rows are short
    uint16_t queue[kQueues<Likelihood> ? kSlots : 1];               // slots; each warp has a part
  };

  const TiledObjective& a;
  Slots& slots;
  const TilePlace at;
  const T factor;

  struct Row {
    int64_t row;
    T shift, scale;  // what is added to recon, log_library - log sum exp; a factor of the gradients
    typename Way::Row recon, target, weight, own[at_least_one(P)];
    typename Way::Row gradient, by_own[at_least_one(P)];  // or, of a softmax, `waiting`
  };
  using RowSums = T[2 + P];

  __device__ __forceinline__ TileElements(const TiledObjective& a, Slots& slots)
      : a(a), slots(slots), at(a.tiling, a.shape), factor(T(a.factor)) {}

  __device__ __forceinline__ T scale_of(int64_t row) const {
    return a.upstream.data ? factor * read_as<T>(a.upstream, row) : factor;
  }

  // But for its shift.
  __device__ __forceinline__ Row row_of(int64_t number) const {
    Row row = {number, T(0), scale_of(number)};
    row.recon = Way::row_of(a.shape, a.recon, number);
    row.target = Way::row_of(a.shape, a.target, number);
    row.weight = Way::row_of(a.shape, a.weight, number);
    row.gradient = Way::row_of(a.shape, a.softmax ? a.waiting : a.gradient, number);
    for (int p = 0; p < P; ++p) {
      row.own[p] = Way::row_of(a.shape, a.parameters[p], number);
      row.by_own[p] = Way::row_of(a.shape, a.parameter_gradients[p], number);
    }
    return row;
  }

  __device__ __forceinline__ bool is_weighted() const { return !Way::kPlain && a.is_weighted; }

  // ---- elements -----------------------------------------------------------------------------------------------------

  template <int W>
  struct Inputs {
    T recon[W], target[W], own[at_least_one(N)][W] = {}, weight[W];

    __device__ __forceinline__ void own_of(int k, T (&out)[at_least_one(N)]) const {
      for (int n = 0; n < at_least_one(N); ++n) out[n] = own[n][k];
    }
  };

  template <int W>
  __device__ __forceinline__ void load(const Row& row, int64_t column, int count, Inputs<W>& in) const {
    Way::template load<StoredTypes>(a.shape, a.target, row.target, column, count, in.target);
    if (F > 0 && a.prepared) {
      const T* const prepared = static_cast<const T*>(a.prepared) + column;  // [F, features]
      for (int n = 0; n < F; ++n) Way::load_plain(prepared + n * a.shape.features, count, in.own[n]);
    }
    for (int p = 0; p < P; ++p) {
      if (F > 0 && p == 0 && a.prepared) continue;
      T(&own)[W] = in.own[N - P + p];
      Way::template load_parameter<FloatingTypes>(a.shape, a.parameters[p], row.own[p], column, count, own);
      if constexpr (F > 0) {
        if (p > 0) continue;
        for (int k = 0; k < W; ++k) {
          T first[F];
          Likelihood::template prepare_first<Counting>(own[k], first);
          for (int n = 0; n < F; ++n) in.own[n][k] = first[n];
        }
      }
    }
    if (!is_weighted()) return;
    for (int k = 0; k < W; ++k) in.weight[k] = T(a.weight_number);
    if (a.weight.data) Way::template load<FactorTypes>(a.shape, a.weight, row.weight, column, count, in.weight);
  }

  // The terms of the vector of a row that begins at `column`, with its first slot. Queued elements are left out; which
  // these are is returned, a bit each.
  __device__ __forceinline__ uint32_t take(const Row& row, int64_t column, int slot, RowSums& sums) const {
    const int count = count_of<Way>(a.shape, column);
    Inputs<V> in;
    Way::template load<FloatingTypes>(a.shape, a.recon, row.recon, column, count, in.recon);
    load(row, column, count, in);
    Terms<T, P> terms[V];
    bool waits[V] = {};
    PYVAE_UNROLL
    for (int k = 0; k < V; ++k) {
      in.recon[k] += row.shift;
      if (kQueues<Likelihood>) waits[k] = k < count && in.target[k] != T(0);
    }
    // What weighs nothing does not wait, so that masks and factors of 0 leave the queue the same; but as a factor's
    // product, what is no count is NaN.
    if (kQueues<Likelihood> && is_weighted()) {
      for (int k = 0; k < V; ++k) {
        const bool is_count = in.target[k] >= T(0) && in.target[k] < Real<T>::kInfinity;
        if (in.weight[k] == T(0)) waits[k] = waits[k] && !a.is_masked && !is_count;
      }
    }
    PYVAE_UNROLL
    for (int k = 0; k < V; ++k) {
      T own[at_least_one(N)];
      in.own_of(k, own);
      if constexpr (kQueues<Likelihood>) {
        const bool absent = waits[k] || k >= count;
        const T recon = absent && Likelihood::kLogMean ? -Real<T>::kInfinity : in.recon[k];  // of -inf, nothing
        terms[k] = Likelihood::template evaluate_zero<Counting>(recon, own);
        if (absent && !Likelihood::kLogMean) terms[k] = {};
      } else {
        terms[k] = evaluate_element<Likelihood, Counting>(in.recon[k], in.target[k], own);  // own: the parameters
        if (k >= count) terms[k] = {};
      }
    }
    if (is_weighted()) {
      for (int k = 0; k < V; ++k) apply_weight(terms[k], in.weight[k], a.is_masked);
    }
    for (int k = 0; k < V; ++k) sums[0] += terms[k].value;
    T out[V];
    for (int k = 0; k < V; ++k) out[k] = terms[k].value;
    give_value(row, column, count, out);
    for (int p = 0; p < P; ++p) {
      for (int k = 0; k < V; ++k) out[k] = terms[k].parameters[p];
      if (a.parameter_sums[p] == ParameterSum::kPerColumn)
        add_to_columns(slots.parameters[p] + slot, row.scale, out);
      else if (kQueues<Likelihood>)
        store_slots(slots.parameters[p] + slot, out);
      else
        give_parameter(row, p, column, count, out, sums);
    }
    uint32_t queued = 0;
    for (int k = 0; k < V; ++k) {
      out[k] = waits[k] ? in.recon[k] : terms[k].derivative;
      queued |= uint32_t(waits[k]) << k;
    }
    if (kQueues<Likelihood>)
      store_slots(slots.derivatives + slot, out);
    else
      give_derivative(row, column, count, out, sums);
    return queued;
  }

  __device__ __forceinline__ void add_to_columns(T* sums, T scale, const T (&terms)[V]) const {
    T own[V];
    load_slots(sums, own);
    for (int k = 0; k < V; ++k) own[k] = fma(scale, terms[k], own[k]);
    store_slots(sums, own);
  }

  // ---- results of a row's elements ----------------------------------------------------------------------------------

  template <int W>
  __device__ __forceinline__ void give_value(const Row& row, int64_t column, int count, const T (&out)[W]) const {
    if (!a.elements.data) return;
    const auto to = Way::row_of(a.shape, a.elements, row.row);
    Way::template store<Types<T>>(a.shape, a.elements, to, column, count, out);
  }

  __device__ __forceinline__ void give_derivative(const Row& row, int64_t column, int count, T (&out)[V],
                                                  RowSums& sums) const {
    if constexpr (Likelihood::kSoftmax != Softmax::kNever) {
      for (int k = 0; k < V; ++k) sums[1] += out[k];
    }
    if (!a.gradient.data) return;
    if (a.softmax) return Way::template store<Types<T>>(a.shape, a.waiting, row.gradient, column, count, out);
    for (int k = 0; k < V; ++k) out[k] *= row.scale;
    Way::template store<FloatingTypes>(a.shape, a.gradient, row.gradient, column, count, out);
  }

  __device__ __forceinline__ void give_parameter(const Row& row, int p, int64_t column, int count, T (&out)[V],
                                                 RowSums& sums) const {
    if (a.parameter_sums[p] == ParameterSum::kPerRow) {
      for (int k = 0; k < V; ++k) sums[2 + p] += out[k];
    }
    if (!a.parameter_gradients[p].data) return;
    for (int k = 0; k < V; ++k) out[k] *= row.scale;
    Way::template store<FloatingTypes>(a.shape, a.parameter_gradients[p], row.by_own[p], column, count, out);
  }

  // ---- the queue ----------------------------------------------------------------------------------------------------

  // All lanes of a warp must call. Bit v * V + k of `queued` is element k of vector v.
  __device__ __forceinline__ void take_queue(int64_t first, const Row& row, uint32_t queued, RowSums& sums) const {
    uint16_t* const queue = slots.queue + int(threadIdx.x) / kWarp * (kWarp * V * kVectors);
    const int lane = int(threadIdx.x) % kWarp, own = __popc(queued);
    int place = own;  // behind the own elements
    PYVAE_UNROLL
    for (int step = 1; step < kWarp; step *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, place, step);
      if (lane >= step) place += before;
    }
    const int count = __shfl_sync(0xffffffffu, place, kWarp - 1);
    place -= own;
#pragma unroll 1
    for (uint32_t left = queued; left; left &= left - 1) {
      const unsigned bit = unsigned(__ffs(int(left)) - 1);
      queue[place++] = uint16_t(bit / V * (kThreads * V) + threadIdx.x * V + bit % V);
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < count; i += kWarp) take_queued(first, row, queue[i], sums);
    __syncwarp();
    if (!a.tiling.is_short()) return;
    for (int k = 0; k < V; ++k) {
      if (queued >> k & 1) sums[0] += slots.values[int(threadIdx.x) * V + k];
    }
  }

  // One element of any thread of the warp.
  __device__ __forceinline__ void take_queued(int64_t first, const Row& own_row, unsigned slot, RowSums& sums) const {
    const bool is_short = a.tiling.is_short();
    const unsigned thread = slot / V % kThreads, v = slot / (V * kThreads);
    const unsigned lane = thread & unsigned(a.tiling.lanes - 1);
    const int64_t column = at.before + int64_t(v * unsigned(at.column_step) + lane * V + slot % V);
    const Row row = is_short ? row_of(first + int(thread) / a.tiling.lanes) : own_row;
    Inputs<1> in;
    load(row, column, 1, in);
    T own[at_least_one(N)];
    in.own_of(0, own);
    auto term = Likelihood::template evaluate<Counting>(slots.derivatives[slot], in.target[0], own);
    if (is_weighted()) apply_weight(term, in.weight[0], a.is_masked);
    slots.derivatives[slot] = term.derivative;
    const T value[1] = {term.value};
    give_value(row, column, 1, value);
    for (int p = 0; p < P; ++p) {
      const T own_sum = slots.parameters[p][slot], by_own = term.parameters[p];
      const bool per_column = a.parameter_sums[p] == ParameterSum::kPerColumn;
      slots.parameters[p][slot] = per_column ? fma(row.scale, by_own, own_sum) : by_own;
    }
    if (is_short) {
      slots.values[slot] = term.value;
    } else {
      sums[0] += term.value;
    }
  }

  // What lies in a vector's slots.
  __device__ __forceinline__ void give(const Row& row, int64_t column, int slot, RowSums& sums) const {
    const int count = count_of<Way>(a.shape, column);
    T out[V];
    load_slots(slots.derivatives + slot, out);
    give_derivative(row, column, count, out, sums);
    for (int p = 0; p < P; ++p) {
      if (a.parameter_sums[p] == ParameterSum::kPerColumn) continue;
      load_slots(slots.parameters[p] + slot, out);
      give_parameter(row, p, column, count, out, sums);
    }
  }
};

}  // namespace cuda
}  // namespace pyvae
