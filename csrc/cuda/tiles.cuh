// What the kernels of a tiled call share: where a thread is in its tile, and ways into the tensors row by row.
#pragma once

#include "cuda/element.cuh"
#include "cuda/reduce.cuh"

namespace pyvae {
namespace cuda {

// ---- registers ------------------------------------------------------------------------------------------------------

// x, which the compiler must keep: it would compute addresses anew for every vector, which takes longer than a vector.
__device__ __forceinline__ int kept(int x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(x));
#endif
  return x;
}
__device__ __forceinline__ int64_t kept(int64_t x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}
__device__ __forceinline__ char* kept(char* x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// ---- ways into a tensor: V elements of a row, from `column` on, of which `count` are there --------------------------

// Of tensors whose rows are contiguous and aligned to whole vectors; parameters may be numbers in each row. strides[0]
// is counted in bytes here (`pack`). kPlain: all are float, and nothing is weighted; else types are found out once a
// vector.
template <bool kPlain_>
struct PackedRows {
  using T = float;
  static constexpr bool kPlain = kPlain_;
  static constexpr bool kAlwaysWhole = true;  // count is V
  static constexpr int kTileBlocks = kPackedTileBlocks;

  // Where a row begins.
  using Row = char*;
  static __device__ __forceinline__ Row row_of(const Shape&, const Operand& operand, int64_t row) {
    const auto data = reinterpret_cast<uint64_t>(operand.data);  // null, if the operand is absent
    return kept(reinterpret_cast<char*>(data + uint64_t(row * operand.strides[0])));
  }

  template <class List, int V>
  static __device__ __forceinline__ void load(const Shape&, const Operand& operand, Row row, int64_t column, int,
                                              T (&out)[V]) {
    if (kPlain || operand.type == kTypeCode<float>) return load_as<float>(row, column, out);
    visit(List{}, operand.type, [&](auto tag) { load_as<typename decltype(tag)::type>(row, column, out); });
  }

  template <class List, int V>
  static __device__ __forceinline__ void load_parameter(const Shape& shape, const Operand& operand, Row row,
                                                        int64_t column, int count, T (&out)[V]) {
    if (operand.strides[1] != 0) return load<List>(shape, operand, row, column, count, out);
    T number[1];
    load<List>(shape, operand, row, 0, 1, number);
    for (int k = 0; k < V; ++k) out[k] = number[0];
  }

  // Of plain memory.
  template <int V>
  static __device__ __forceinline__ void load_plain(const T* from, int, T (&out)[V]) {
    Vector<T, V>::load(from, out);
  }
  template <int V>
  static __device__ __forceinline__ void store_plain(T* to, int, const T (&in)[V]) {
    Vector<T, V>::template store<true>(to, in);
  }

  template <class List, int V>
  static __device__ __forceinline__ void store(const Shape&, const Operand& operand, Row row, int64_t column, int,
                                               const T (&in)[V]) {
    if (kPlain || operand.type == kTypeCode<float>) return store_as<float>(row, column, in);
    visit(List{}, operand.type, [&](auto tag) { store_as<typename decltype(tag)::type>(row, column, in); });
  }

 private:
  template <class Stored, int V>
  static __device__ __forceinline__ void load_as(Row row, int64_t column, T (&out)[V]) {
    Vector<Stored, V>::load(reinterpret_cast<const Stored*>(row) + column, out);
  }
  template <class Stored, int V>
  static __device__ __forceinline__ void store_as(Row row, int64_t column, const T (&in)[V]) {
    Vector<Stored, V>::template store<true>(reinterpret_cast<Stored*>(row) + column, in);
  }
};

// Of all others.
template <class T_>
struct GeneralRows {
  using T = T_;
  static constexpr bool kAlwaysWhole = false, kPlain = false;
  static constexpr int kTileBlocks = kGeneralTileBlocks<T>;

  using Row = int64_t;  // its first element
  static __device__ __forceinline__ Row row_of(const Shape& shape, const Operand&, int64_t row) {
    return kept(row * shape.features);
  }

  template <class List, int V>
  static __device__ __forceinline__ void load(const Shape& shape, const Operand& operand, Row row, int64_t column,
                                              int count, T (&out)[V]) {
    AnyOf<List>::load(shape, operand, row + column, out, count);
  }
  template <class List, int V>
  static __device__ __forceinline__ void load_parameter(const Shape& shape, const Operand& operand, Row row,
                                                        int64_t column, int count, T (&out)[V]) {
    load<List>(shape, operand, row, column, count, out);
  }
  template <int V>
  static __device__ __forceinline__ void load_plain(const T* from, int count, T (&out)[V]) {
    for (int k = 0; k < V; ++k) out[k] = from[k < count ? k : count - 1];
  }
  template <int V>
  static __device__ __forceinline__ void store_plain(T* to, int count, const T (&in)[V]) {
    for (int k = 0; k < V; ++k) {
      if (k < count) to[k] = in[k];
    }
  }
  template <class List, int V>
  static __device__ __forceinline__ void store(const Shape& shape, const Operand& operand, Row row, int64_t column,
                                               int count, const T (&in)[V]) {
    AnyOf<List>::template store<List>(shape, operand, row + column, in, count);
  }
};

// Whether PackedRows can follow an operand.
inline bool has_packed_rows(const Shape& shape, const Operand& operand, bool may_be_number = false) {
  if (!operand.data) return true;
  const int64_t inner = operand.strides[shape.dims - 1];
  if (shape.dims > 2 || (shape.dims == 2 && shape.sizes[1] != shape.features)) return false;
  if (inner == 0) return may_be_number;
  return inner == 1 && reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 && shape.features % kTileVector == 0 &&
         (shape.dims == 1 || operand.strides[0] % kTileVector == 0);
}

// For PackedRows: two strides, the first one in bytes.
inline void pack(const Shape& shape, Operand& operand) {
  const int64_t inner = operand.strides[shape.dims - 1];
  const int64_t stride = shape.dims > 1 ? operand.strides[0] : inner == 0 ? 0 : shape.features;
  visit(StoredTypes{}, operand.type,
        [&](auto tag) { operand.strides[0] = stride * int64_t(sizeof(typename decltype(tag)::type)); });
  operand.strides[1] = inner;
}

// Launches the kernel for a call's layout and types, launch(Tag<way>(), call).
template <class Launch>
const char* choose_rows(const TiledObjective& a, const Launch& launch) {
  if (a.in_double) return launch(Tag<GeneralRows<double>>{}, a);
  TiledObjective out = a;
  bool packed = a.shape.features % kTileVector == 0, plain = !a.is_weighted;
  const auto see = [&](Operand& operand, bool may_be_number = false) {
    packed &= has_packed_rows(a.shape, operand, may_be_number);
    plain &= !operand.data || operand.type == kTypeCode<float>;
    pack(a.shape, operand);
  };
  for (Operand* operand : {&out.recon, &out.target, &out.weight, &out.elements, &out.gradient, &out.waiting}) {
    see(*operand);
  }
  for (int k = 0; k < kMaxParameters; ++k) {
    see(out.parameters[k], /*may_be_number=*/true), see(out.parameter_gradients[k]);
  }
  if (!packed) return launch(Tag<GeneralRows<float>>{}, a);
  return plain ? launch(Tag<PackedRows<true>>{}, out) : launch(Tag<PackedRows<false>>{}, out);
}

// ---- where a thread is ----------------------------------------------------------------------------------------------

// Threads lie over a tile as `lanes` by rows_at_once. A thread's vectors begin at first_column and each column_step on.
struct TilePlace {
  int64_t group, slice;
  int lane, sub_row;  // in a row, and which of those that are taken at once
  int rows_at_once, column_step;
  int64_t first, end;          // rows of the group
  int64_t before;              // columns before the slice
  int64_t first_column, last;  // of the thread, and where the slice ends

  __device__ __forceinline__ TilePlace(const Tiling& tiling, const Shape& shape) {
    group = tiling.slices == 1 ? int64_t(blockIdx.x) : int64_t(blockIdx.x / unsigned(tiling.slices));
    slice = int64_t(blockIdx.x) - group * tiling.slices;
    lane = kept(int(threadIdx.x) & (tiling.lanes - 1)), sub_row = kept(int(threadIdx.x) / tiling.lanes);
    rows_at_once = kept(tiling.rows_at_once()), column_step = kept(tiling.lanes * kTileVector);
    first = group * tiling.rows_each;
    end = kept(first + tiling.rows_each < shape.rows ? first + tiling.rows_each : shape.rows);
    before = kept(slice * tiling.columns());
    first_column = kept(before + lane * kTileVector);
    last = kept(before + tiling.columns() < shape.features ? before + tiling.columns() : shape.features);
  }
};

// Elements that are there of a vector.
template <class Way>
__device__ __forceinline__ int count_of(const Shape& shape, int64_t column) {
  const int64_t left = shape.features - column;
  return Way::kAlwaysWhole || left > kTileVector ? kTileVector : int(left);
}

// The sum of a column over its groups' parts, [groups, features].
template <class T>
__device__ __forceinline__ double column_sum(const TiledObjective& a, const T* parts, int64_t column) {
  double sum = 0;
#pragma unroll 4
  for (int64_t group = 0; group < a.tiling.groups; ++group) sum += double(parts[group * a.shape.features + column]);
  return sum;
}

// ---- the normalizers ------------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ T warp_max(T value, int lanes = kWarp) {  // of each `lanes` neighbors
  for (int step = lanes / 2; step > 0; step /= 2) {
    value = larger_of(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// log sum exp of a row's scores, of its parts'. All lanes of a warp must call.
template <class T>
__device__ __forceinline__ T normalizer_of(const TiledObjective& a, int64_t row) {
  const int parts = int(a.normalizer_tiling.parts);
  const T* const normalizers = static_cast<const T*>(a.normalizers) + row * parts;  // [parts]
  if (parts == 1) return normalizers[0];
  T largest = -Real<T>::kInfinity, total = 0;
#pragma unroll 1
  for (int part = threadIdx.x % kWarp; part < parts; part += kWarp) largest = larger_of(largest, normalizers[part]);
  largest = warp_max(largest);
#pragma unroll 1
  for (int part = threadIdx.x % kWarp; part < parts; part += kWarp) {
    total += Counting::exp_negative(normalizers[part] - largest);
  }
  return largest + log(warp_sum(total));
}

// ---- the stages -----------------------------------------------------------------------------------------------------

const char* launch_prepare(const TiledObjective& call, void* stream);
const char* launch_tiles(const TiledObjective& call, void* stream);
const char* launch_finish(const TiledObjective& call, void* stream);

}  // namespace cuda
}  // namespace pyvae
