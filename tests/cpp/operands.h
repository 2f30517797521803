// Operands of the CPU kernels, in heap blocks of exactly the bytes that a kernel may touch.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "cpu/kernels.h"
#include "math/stored.h"

namespace {

using namespace pyvae;
using namespace pyvae::cpu;

using Type = int8_t;  // StoredTypes
constexpr Type kFloat = kTypeCode<float>, kDouble = kTypeCode<double>, kHalf = kTypeCode<Half>;
constexpr Type kBFloat16 = kTypeCode<BFloat16>, kBool = kTypeCode<Bool>;
constexpr int kIntegers = StoredTypes::kCount - FloatingTypes::kCount;  // and bool: the last of the types

size_t size_of(Type type) {
  return visit(StoredTypes{}, type, [](auto tag) { return sizeof(typename decltype(tag)::type); });
}

void store(char* to, Type type, double value) {
  visit(StoredTypes{}, type, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    Stored stored;
    if constexpr (kTypeCode<Stored> < FloatingTypes::kCount) {
      stored = narrow<Stored>(value);
    } else if constexpr (kTypeCode<Stored> == kBool) {
      stored = {uint8_t(value != 0)};
    } else {
      stored = Stored(16 * value);
    }
    std::memcpy(to, &stored, sizeof(stored));
  });
}

// How an operand lies in memory. The last two read the same element many times, so they are for inputs only.
enum Layout { kContiguous, kUnflagged, kOddOffset, kReversed, kEverySecond, kOneRow, kOneValue };
constexpr Layout kInputs[] = {kContiguous, kUnflagged, kOddOffset, kReversed, kEverySecond, kOneRow, kOneValue};
[[maybe_unused]] bool is_broadcast(Layout layout) { return layout == kOneRow || layout == kOneValue; }

int64_t count(const Shape& shape) { return shape.rows * shape.features; }

class Block {
 public:
  Block(const Shape& shape, Type type, Layout layout) : shape_(shape), type_(type) {
    operand.type = type;
    operand.contiguous = layout == kContiguous || layout == kOddOffset || count(shape) == 0;
    int64_t step = 1, extent = count(shape) > 0;
    for (int k = 0; k < shape.dims; ++k) {
      const int d = layout == kReversed ? k : shape.dims - 1 - k;
      operand.strides[d] =
          layout == kOneValue || (layout == kOneRow && d == 0) ? 0 : step * (layout == kEverySecond ? 2 : 1);
      extent += operand.strides[d] * (count(shape) > 0 ? shape.sizes[d] - 1 : 0);
      step *= shape.sizes[d];
    }
    const size_t skipped = layout == kOddOffset ? size_of(type) : 0;
    block_ = static_cast<char*>(std::malloc(skipped + size_t(extent) * size_of(type)));
    operand.data = block_ + skipped;
  }
  Block(const Block&) = delete;
  ~Block() { std::free(block_); }

  void fill(const std::function<double(int64_t)>& value) {
    for (int64_t i = 0; i < count(shape_); ++i) store(at(i), type_, value(i));
  }

  // The elements' bytes in logical order.
  std::string bytes() const {
    std::string out;
    for (int64_t i = 0; i < count(shape_); ++i) out.append(at(i), size_of(type_));
    return out;
  }

  Operand operand;

 private:
  char* at(int64_t i) const {
    const int64_t size = int64_t(size_of(type_));
    if (operand.contiguous) return static_cast<char*>(operand.data) + i * size;
    int64_t offset = 0;
    for (int d = shape_.dims - 1; d >= 0; i /= shape_.sizes[d--]) offset += i % shape_.sizes[d] * operand.strides[d];
    return static_cast<char*>(operand.data) + offset * size;
  }

  Shape shape_;
  Type type_;
  char* block_;
};

}  // namespace
