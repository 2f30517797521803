// Where an operand's chunks are read from, decided once per call: its own memory, a buffer that is filled once, one
// number per row, or a buffer that is filled again for each chunk.
#pragma once

#include "cpu/chunk.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
class Source {
 public:
  // `number`: the value of all elements if the operand is absent.
  PYVAE_NOINLINE void open(const Shape& shape, const Chunks& chunks, const Operand& operand, double number = 1) {
    shape_ = &shape, operand_ = &operand;
    const int last = shape.dims - 1;
    const bool is_matrix = shape.dims == 2 && shape.sizes[1] == shape.features;
    if (!operand.data) {
      fill(T(number));
    } else if (is_run_of<T>(operand)) {
      kind_ = kInPlace, row_stride_ = shape.features;
    } else if (shape.rows * shape.features == 0) {
      // no element to read
    } else if (is_one_number(shape, operand)) {
      T value[1];
      read_run(operand, 0, 0, 1, value);
      fill(value[0]);
    } else if (is_matrix && chunks.length > 0 && operand.strides[last] == 1 && operand.type == kTypeCode<T>) {
      kind_ = kInPlace, row_stride_ = operand.strides[0];
    } else if (is_matrix && chunks.length == 0 && operand.strides[0] == 0) {
      fill_rows(chunks);
    } else if (is_matrix && operand.strides[last] == 0) {
      kind_ = kPerRow;
    }
  }

  // The elements of a chunk.
  const T* operator()(const Chunk& c) {
    switch (kind_) {
      case kFilled:
        return buffer_;
      case kInPlace:
        return static_cast<const T*>(operand_->data) + c.row * row_stride_ + c.column;
      case kPerRow:
        return of_rows(c);
      default:
        return anew(c);
    }
  }

  // is_number: all elements of a chunk are one number. repeats: every row, or chunk of whole rows, has the same
  // elements. is_per_row: each row has one number.
  bool is_number(const Chunk& c) const { return is_number_ || (kind_ == kPerRow && c.rows == 1); }
  bool repeats() const { return kind_ == kFilled || (kind_ == kInPlace && row_stride_ == 0); }
  bool is_per_row() const { return kind_ == kPerRow; }

  // The rows' numbers [c.rows], if is_per_row.
  void per_row(const Chunk& c, T* out) const {
    const int64_t stride = operand_->strides[0];
    read_run(*operand_, c.row * stride, stride, c.rows, out);
  }

 private:
  enum Kind { kAnew, kFilled, kInPlace, kPerRow };

  void fill(T value) {
    kind_ = kFilled, is_number_ = true;
    for (int i = 0; i < kBuffer; ++i) buffer_[i] = value;
  }

  // Chunks of whole rows begin at a row, so one pattern of the longest chunk's length serves all chunks.
  void fill_rows(const Chunks& chunks) {
    kind_ = kFilled;
    const int features = int(shape_->features), all = int(chunks.rows_each) * features;
    read_run(*operand_, 0, operand_->strides[shape_->dims - 1], features, buffer_);
    for (int i = features; i < all; ++i) buffer_[i] = buffer_[i - features];
  }

  PYVAE_NOINLINE const T* of_rows(const Chunk& c) {
    if (c.rows > 1) {
      T numbers[kBuffer];
      per_row(c, numbers);
      repeat_rows(numbers, c.rows, c.features, buffer_);
    } else if (row_ != c.row) {
      row_ = c.row;
      per_row(c, buffer_);
      for (int i = 1; i < kBuffer; ++i) buffer_[i] = buffer_[0];
    }
    return buffer_;
  }

  PYVAE_NOINLINE const T* anew(const Chunk& c) { return read(*shape_, *operand_, c.first, c.n, buffer_); }

  const Shape* shape_ = nullptr;
  const Operand* operand_ = nullptr;
  Kind kind_ = kAnew;
  bool is_number_ = false;
  int64_t row_stride_ = 0, row_ = -1;
  alignas(64) T buffer_[kBuffer];
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
