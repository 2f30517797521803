// A chunk's way in and out: any layout and any type become a contiguous run of T, and back. Where an operand already is
// such a run, its own memory is used.
#pragma once

#include "cpu/kernels.h"
#include "math/stored.h"

namespace pyvae {
inline namespace PYVAE_ISA {

using namespace cpu;

// Every buffer of a chunk holds one kChunk; noise may start up to three elements early.
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

// The elements as T: in place where the operand is a run of T, else copied to `buffer`.
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

// Where to compute elements that write() then brings to the operand; the buffer, too, where that is absent.
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

// ---- map and reduce -------------------------------------------------------------------------------------------------

// Sixteen lanes in T, then a tree in double: the same order for every instruction set. Short rows go one by one in
// double: setting up the lanes would take longer.
template <class T>
double sum(const T* values, int n) {
  constexpr int kLanes = kSumLanes;
  if (n < 4 * kLanes) {
    double total = 0;
    for (int i = 0; i < n; ++i) total += double(values[i]);
    return total;
  }
  T lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  for (int lane = 0; i + lane < n; ++lane) lanes[lane] += values[i + lane];
  double tree[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) tree[lane] = double(lanes[lane]);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) tree[lane] += tree[lane + width];
  }
  return tree[0];
}

// The one skeleton of all kernels. For each chunk, map(first, n, row, rows) computes the elements [first, first + n),
// which are (part of) `rows` rows from `row` on, and returns their values; their sums per row go to `sums`.
template <class T, class Map>
void map_and_reduce(const Shape& shape, double* sums, int64_t begin, int64_t end, Map map) {
  const Chunks chunks(shape);
  const int64_t features = shape.features;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    if (chunks.length > 0) {
      const int64_t row = chunk / chunks.per_row;
      const int64_t column = chunk % chunks.per_row * chunks.length;
      const int64_t rest = features - column;
      const int n = int(rest < chunks.length ? rest : chunks.length);
      const T* values = map(row * features + column, n, row, 1);
      if (sums) sums[chunk] = sum(values, n);
    } else {
      const int64_t row = chunk * chunks.rows_each;
      const int64_t rest = shape.rows - row;
      const int rows = int(rest < chunks.rows_each ? rest : chunks.rows_each);
      const T* values = map(row * features, int(rows * features), row, rows);
      if (sums) {
        for (int i = 0; i < rows; ++i) sums[row + i] = sum(values + i * features, int(features));
      }
    }
  }
}

// Spreads one number per row over the elements of a chunk.
template <class T>
const T* spread(const double* per_row, int64_t row, int rows, int n, T* out) {
  const int features = rows > 0 ? n / rows : 0;
  for (int r = 0; r < rows; ++r) {
    const T value = T(per_row[row + r]);
    for (int i = 0; i < features; ++i) out[r * features + i] = value;
  }
  return out;
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
