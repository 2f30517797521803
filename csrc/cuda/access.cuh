// Load and store policies: V consecutive elements of the index space, converted to T and back.
//
// Packed<Stored>: vectors that are contiguous and aligned to their size, of a type known to the compiler, or
// (PackedAny<Likely, List>) one of a list, found out at run time, the same way in all threads: the hot kernels.
// AnyOf<List>: every stride and alignment, and every type of a list, element by element.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "math/stored.h"

namespace pyvae {
namespace cuda {

// ---- vectors --------------------------------------------------------------------------------------------------------

// The machine's words of 1 to 16 bytes.
template <int kBytes>
struct Word;
template <>
struct Word<1> {
  using Type = uint8_t;
};
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// V stored elements in as few words as they fill.
template <class Stored, int V>
struct Vector {
  static constexpr int kBytes = V * int(sizeof(Stored));
  static constexpr int kWord = kBytes < 16 ? kBytes : 16;
  using Word = typename cuda::Word<kWord>::Type;

  template <class T>
  static __device__ __forceinline__ void load(const Stored* from, T (&out)[V]) {
    Word words[kBytes / kWord];
    PYVAE_UNROLL
    for (int i = 0; i < kBytes / kWord; ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
    Stored stored[V];
    __builtin_memcpy(stored, words, kBytes);
    PYVAE_UNROLL
    for (int i = 0; i < V; ++i) out[i] = widen<T>(stored[i]);
  }

  // kGlobal: into global memory, where 16 bytes stay one store. The compiler may split them into smaller ones.
  template <bool kGlobal = false, class T>
  static __device__ __forceinline__ void store(Stored* to, const T (&in)[V]) {
    Stored stored[V];
    PYVAE_UNROLL
    for (int i = 0; i < V; ++i) stored[i] = narrow<Stored>(in[i]);
    Word words[kBytes / kWord];
    __builtin_memcpy(words, stored, kBytes);
    PYVAE_UNROLL
    for (int i = 0; i < kBytes / kWord; ++i) {
#ifdef __CUDA_ARCH__
      if constexpr (kGlobal && kWord == 16) {
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(reinterpret_cast<Word*>(to) + i), "r"(words[i].x),
                     "r"(words[i].y), "r"(words[i].z), "r"(words[i].w)
                     : "memory");
        continue;
      }
#endif
      reinterpret_cast<Word*>(to)[i] = words[i];
    }
  }
};

// Quotient and remainder by a size; in 32 bits where they suffice, which is several times faster.
__device__ __forceinline__ int64_t divide(int64_t i, int64_t size, int64_t& rest) {
  if (((i | size) >> 32) == 0) {
    const uint32_t quotient = uint32_t(i) / uint32_t(size);
    rest = uint32_t(i) - quotient * uint32_t(size);
    return quotient;
  }
  const int64_t quotient = i / size;
  rest = i - quotient * size;
  return quotient;
}

// Where a vector begins. In two dimensions the tensors are rows of wider ones, as `chunk` gives mu and logvar, or one
// row for all of them, as a weight per feature is.
struct PackedPlace {
  int64_t i, row;

  PackedPlace() = default;
  __device__ __forceinline__ PackedPlace(const Shape& shape, int64_t i) : i(i), row(0) {
    int64_t column;
    if (shape.dims > 1) row = divide(i, shape.sizes[1], column);
  }
  __device__ __forceinline__ int64_t offset(const Shape& shape, const Operand& operand) const {
    return i + row * (operand.strides[0] - shape.sizes[1]);
  }
};

template <class Stored>
struct Packed {
  static constexpr bool kGeneral = false;

  using Place = PackedPlace;
  static __device__ __forceinline__ Place place(const Shape& shape, int64_t i) { return {shape, i}; }

  template <class T, int V>
  static __device__ __forceinline__ void load(const Shape& shape, const Operand& operand, Place at, T (&out)[V]) {
    Vector<Stored, V>::load(static_cast<const Stored*>(operand.data) + at.offset(shape, operand), out);
  }

  template <class T, int V>
  static __device__ __forceinline__ void store(const Shape& shape, const Operand& operand, Place at, const T (&in)[V]) {
    Vector<Stored, V>::template store<true>(static_cast<Stored*>(operand.data) + at.offset(shape, operand), in);
  }
};

template <class Likely, class List>
struct PackedAny {
  using Place = PackedPlace;

  template <class T, int V>
  static __device__ __forceinline__ void load(const Shape& shape, const Operand& operand, Place at, T (&out)[V]) {
    if (operand.type == kTypeCode<Likely>) return Packed<Likely>::load(shape, operand, at, out);
    visit(List{}, operand.type, [&](auto tag) { Packed<typename decltype(tag)::type>::load(shape, operand, at, out); });
  }

  template <class T, int V>
  static __device__ __forceinline__ void store(const Shape& shape, const Operand& operand, Place at, const T (&in)[V]) {
    if (operand.type == kTypeCode<Likely>) return Packed<Likely>::store(shape, operand, at, in);
    visit(List{}, operand.type, [&](auto tag) { Packed<typename decltype(tag)::type>::store(shape, operand, at, in); });
  }
};

// ---- every layout ---------------------------------------------------------------------------------------------------

template <class List>
struct AnyOf {
  static constexpr bool kGeneral = true;

  using Place = int64_t;
  static __device__ __forceinline__ Place place(const Shape&, int64_t i) { return i; }

  // `count`: elements that there are, at least one. Beyond them the last one is loaded, and nothing stored. `step`:
  // bytes from the operand to where it is read instead.
  template <class T, int V>
  static __device__ __forceinline__ void load(const Shape& shape, const Operand& operand, int64_t i, T (&out)[V],
                                              int count = V, int64_t step = 0) {
    int64_t at[V];
    offsets(shape, operand, i, count, at);
    visit(List{}, operand.type, [&](auto tag) {
      using Stored = typename decltype(tag)::type;
      PYVAE_UNROLL
      for (int k = 0; k < V; ++k) out[k] = widen<T>(at_step<const Stored>(operand, step)[at[k]]);
    });
  }

  template <class Written = FloatingTypes, class T, int V>
  static __device__ __forceinline__ void store(const Shape& shape, const Operand& operand, int64_t i, const T (&in)[V],
                                               int count = V, int64_t step = 0) {
    int64_t at[V];
    offsets(shape, operand, i, count, at);
    visit(Written{}, operand.type, [&](auto tag) {
      using Stored = typename decltype(tag)::type;
      PYVAE_UNROLL
      for (int k = 0; k < V; ++k) {
        if (k < count) at_step<Stored>(operand, step)[at[k]] = narrow<Stored>(in[k]);
      }
    });
  }

 private:
  template <class Stored>
  static __device__ __forceinline__ Stored* at_step(const Operand& operand, int64_t step) {
    return reinterpret_cast<Stored*>(static_cast<char*>(operand.data) + step);
  }

  // Of the elements i, i + 1, ...: the first one's by division, the others' by counting on from it.
  template <int V>
  static __device__ __forceinline__ void offsets(const Shape& shape, const Operand& operand, int64_t i, int count,
                                                 int64_t (&at)[V]) {
    if (operand.contiguous) {
      PYVAE_UNROLL
      for (int k = 0; k < V; ++k) at[k] = i + (k < count ? k : count - 1);
      return;
    }
    int64_t outer[V];  // the index over the dimensions not yet taken off
    PYVAE_UNROLL
    for (int k = 0; k < V; ++k) at[k] = 0, outer[k] = i + (k < count ? k : count - 1);
#pragma unroll 1
    for (int d = shape.dims - 1; d > 0; --d) {
      const int64_t size = shape.sizes[d], stride = operand.strides[d];
      int64_t before = outer[0], index, quotient = divide(before, size, index);
      PYVAE_UNROLL
      for (int k = 0; k < V; ++k) {
        if (outer[k] != before) {  // then it is one more
          before = outer[k];
          if (++index == size) index = 0, ++quotient;
        }
        at[k] += index * stride;
        outer[k] = quotient;
      }
    }
    PYVAE_UNROLL
    for (int k = 0; k < V; ++k) at[k] += outer[k] * operand.strides[0];
  }
};

// ---- one number per row ---------------------------------------------------------------------------------------------

__device__ __forceinline__ double read(const PerRow& values, int64_t row) {
  if (!values.data) return 0;
  const int64_t at = row * values.stride;
  return values.in_double ? static_cast<const double*>(values.data)[at] : static_cast<const float*>(values.data)[at];
}

// The same, where T is what is computed in.
template <class T>
__device__ __forceinline__ T read_as(const PerRow& values, int64_t row) {
  if (!values.data) return T(0);
  const int64_t at = row * values.stride;
  return values.in_double ? T(static_cast<const double*>(values.data)[at])
                          : T(static_cast<const float*>(values.data)[at]);
}

// The number of each element's row, for elements i, i + 1, ... kOneRow: they are of one row.
template <bool kOneRow, class T, int V>
__device__ __forceinline__ void rows_of(const PerRow& values, int64_t features, int64_t i, T (&out)[V]) {
  int64_t column = 0, row = values.stride == 0 ? 0 : divide(i, features, column);
  out[0] = T(read(values, row));
  for (int k = 1; k < V; ++k) {
    if (!kOneRow && ++column == features) ++row, column = 0;
    out[k] = kOneRow || values.stride == 0 ? out[0] : T(read(values, row));
  }
}

__device__ __forceinline__ void write(const Result& result, int64_t row, double value) {
  if (!result.data) return;
  if (result.in_double) {
    static_cast<double*>(result.data)[row] = value;
  } else {
    static_cast<float*>(result.data)[row] = float(value);
  }
}

}  // namespace cuda
}  // namespace pyvae
