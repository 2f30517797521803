// Loads and stores chunks: any layout and any dtype is converted to a contiguous run of T, and back. If an operand
// already is such a run, its memory is used directly.
#pragma once

#include "cpu/kernels.h"
#include "math/stored.h"

namespace pyvae {
inline namespace PYVAE_ISA {

using namespace cpu;

// Keeps code that depends only on the type from being inlined once per likelihood.
#define PYVAE_NOINLINE __attribute__((noinline))

// No iteration of the next loop reads what another iteration writes.
#ifdef __clang__
#  define PYVAE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#  define PYVAE_INDEPENDENT _Pragma("GCC ivdep")
#endif

// Every buffer of a chunk holds kChunk elements; noise may start up to three elements early.
constexpr int kBuffer = kChunk + 16;

// ---- runs: n elements `stride` apart --------------------------------------------------------------------------------

template <class T>
void read_run(const Operand& operand, int64_t offset, int64_t stride, int n, T* __restrict out) {
  visit(StoredTypes{}, operand.type, [&](auto tag) {
    const auto* in = static_cast<const typename decltype(tag)::type*>(operand.data) + offset;
    if (stride == 1) {
      for (int i = 0; i < n; ++i) out[i] = widen<T>(in[i]);
    } else if (stride == 0) {
      const T value = widen<T>(in[0]);
      for (int i = 0; i < n; ++i) out[i] = value;
    } else {
      for (int i = 0; i < n; ++i) out[i] = widen<T>(in[i * stride]);
    }
  });
}

template <class T>
void write_run(const Operand& operand, int64_t offset, int64_t stride, int n, const T* __restrict in) {
  visit(FloatingTypes{}, operand.type, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    Stored* out = static_cast<Stored*>(operand.data) + offset;
    if (stride == 1) {
      for (int i = 0; i < n; ++i) out[i] = narrow<Stored>(in[i]);
    } else {
      for (int i = 0; i < n; ++i) out[i * stride] = narrow<Stored>(in[i]);
    }
  });
}

// ---- chunks: elements [first, first + n) of the index space ---------------------------------------------------------

// Calls run(offset, stride, done, length) for each run of the innermost dimension.
template <class Run>
void for_each_run(const Shape& shape, const Operand& operand, int64_t first, int n, Run run) {
  int64_t index[kMaxDims];
  for (int d = shape.dims - 1; d >= 0; --d) {
    index[d] = first % shape.sizes[d];
    first /= shape.sizes[d];
  }
  const int last = shape.dims - 1;
  for (int done = 0; done < n;) {
    const int64_t left = shape.sizes[last] - index[last];
    const int length = left < n - done ? int(left) : n - done;
    int64_t offset = 0;
    for (int d = 0; d <= last; ++d) offset += index[d] * operand.strides[d];
    run(offset, operand.strides[last], done, length);
    done += length;
    index[last] += length;
    for (int d = last; d > 0 && index[d] == shape.sizes[d]; --d) {
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

template <class T>
bool is_run_of(const Operand& operand) {
  return operand.contiguous && operand.type == kTypeCode<T>;
}

// Whether all elements of the operand are one number in memory.
PYVAE_HD bool is_one_number(const Shape& shape, const Operand& operand) {
  int64_t any = 0;
  for (int d = 0; d < shape.dims; ++d) any |= operand.strides[d];
  return any == 0;
}

// The elements as T: in place if the operand is a run of T, else copied to `buffer`.
template <class T>
const T* read(const Shape& shape, const Operand& operand, int64_t first, int n, T* buffer) {
  if (is_run_of<T>(operand)) return static_cast<const T*>(operand.data) + first;
  if (operand.contiguous) {
    read_run(operand, first, 1, n, buffer);
  } else {
    for_each_run(shape, operand, first, n, [&](int64_t offset, int64_t stride, int done, int length) {
      read_run(operand, offset, stride, length, buffer + done);
    });
  }
  return buffer;
}

// Where to compute elements that write() then stores in the operand: its memory if it is a run of T, else `buffer`,
// also if the operand is absent.
template <class T>
T* place(const Operand& operand, int64_t first, T* buffer) {
  return operand.data && is_run_of<T>(operand) ? static_cast<T*>(operand.data) + first : buffer;
}

template <class T>
void write(const Shape& shape, const Operand& operand, int64_t first, int n, const T* buffer) {
  if (is_run_of<T>(operand)) return;  // computed in place
  if (operand.contiguous) return write_run(operand, first, 1, n, buffer);
  for_each_run(shape, operand, first, n, [&](int64_t offset, int64_t stride, int done, int length) {
    write_run(operand, offset, stride, length, buffer + done);
  });
}

// ---- one number a row over the row's elements -----------------------------------------------------------------------

template <int kFeatures, class T>
void repeat_narrow(const T* __restrict per_row, int rows, T* __restrict out) {
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < kFeatures; ++i) out[r * kFeatures + i] = per_row[r];  // with a constant width g++ uses shuffles
  }
}

// per_row [rows] to out [rows, features]. `out` needs room for one more register: narrow rows are written as whole
// registers, and each row overwrites the excess of the row before.
template <class T>
PYVAE_NOINLINE void repeat_rows(const T* per_row, int rows, int features, T* __restrict out) {
  switch (features) {
    case 1:
      return repeat_narrow<1>(per_row, rows, out);
    case 2:
      return repeat_narrow<2>(per_row, rows, out);
    case 3:
      return repeat_narrow<3>(per_row, rows, out);
    case 4:
      return repeat_narrow<4>(per_row, rows, out);
  }
  for (int r = 0; r < rows; ++r, out += features) {
    const T value = per_row[r];
    if (features <= kLine) {
      for (int lane = 0; lane < kLine; ++lane) out[lane] = value;
    } else {
      for (int i = 0; i < features; ++i) out[i] = value;
    }
  }
}

// Expands double numbers per row to a chunk's elements.
template <class T>
const T* spread(const double* per_row, const Chunk& c, T* out) {
  T numbers[kBuffer];
  for (int r = 0; r < c.rows; ++r) numbers[r] = T(per_row[c.row + r]);
  repeat_rows(numbers, c.rows, c.features, out);
  return out;
}

// ---- sums -----------------------------------------------------------------------------------------------------------

template <class T>
struct SumLanes {
  static_assert(kSumLanes == 16, "two times eight lanes");
  typedef T Eight __attribute__((vector_size(8 * sizeof(T))));
  typedef double EightDoubles __attribute__((vector_size(8 * sizeof(double))));

  // The sum of the lanes, as a tree in double.
  static double fold(const Eight& first, const Eight& second) {
    const EightDoubles x = __builtin_convertvector(first, EightDoubles) + __builtin_convertvector(second, EightDoubles);
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
  }
  static double fold(const T* lanes) {  // [kSumLanes]
    Eight both[2];
    __builtin_memcpy(both, lanes, sizeof(both));
    return fold(both[0], both[1]);
  }
};

// Sums sixteen lanes in T, then adds them as a tree in double: the same order for every instruction set. Short rows are
// added one by one in double, since setting up the lanes would take longer. The lanes are SIMD vectors: for an array
// g++ emits loads that wait for narrower stores.
template <class T>
double sum(const T* values, int n) {
  using Eight = typename SumLanes<T>::Eight;
  if (n < 4 * kSumLanes) {
    double total = 0;
    for (int i = 0; i < n; ++i) total += double(values[i]);
    return total;
  }
  const auto add = [](Eight(&lanes)[2], const T* from) {
    Eight next[2];
    __builtin_memcpy(next, from, sizeof(next));
    lanes[0] += next[0], lanes[1] += next[1];
  };
  Eight lanes[2];
  __builtin_memcpy(lanes, values, sizeof(lanes));
  int i = kSumLanes;
  for (; i + kSumLanes <= n; i += kSumLanes) add(lanes, values + i);
  if (i < n) {
    T rest[kSumLanes] = {};
    for (int lane = 0; i + lane < n; ++lane) rest[lane] = values[i + lane];
    add(lanes, rest);
  }
  return SumLanes<T>::fold(lanes[0], lanes[1]);
}

template <int kFeatures, class T>
void sum_narrow(const T* __restrict values, int rows, double* __restrict out) {
  for (int r = 0; r < rows; ++r) {
    double total = 0;
    for (int i = 0; i < kFeatures; ++i) total += double(values[r * kFeatures + i]);
    out[r] = total;
  }
}

// values [rows, features] to out [rows], each in the order of `sum`.
template <class T>
PYVAE_NOINLINE void sum_rows(const T* __restrict values, int rows, int features, double* __restrict out) {
  switch (features) {
    case 1:
      return sum_narrow<1>(values, rows, out);
    case 2:
      return sum_narrow<2>(values, rows, out);
    case 3:
      return sum_narrow<3>(values, rows, out);
    case 4:
      return sum_narrow<4>(values, rows, out);
    case 8:
      return sum_narrow<8>(values, rows, out);
  }
  constexpr int kTogether = 8;  // short rows side by side: a single row would wait for each of its additions
  int r = 0;
  for (; features < 4 * kSumLanes && r + kTogether <= rows; r += kTogether) {
    const T* __restrict const from = values + r * features;
    double totals[kTogether] = {};
    for (int i = 0; i < features; ++i) {
      for (int lane = 0; lane < kTogether; ++lane) totals[lane] += double(from[lane * features + i]);
    }
    for (int lane = 0; lane < kTogether; ++lane) out[r + lane] = totals[lane];
  }
  for (; r < rows; ++r) out[r] = sum(values + r * features, features);
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
