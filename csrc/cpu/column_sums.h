// Sums per column, over the rows of a unit (kernels.h).
#pragma once

#include "cpu/chunk.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
class ColumnSums {
 public:
  void open(const Chunks& chunks, T* column_sums) {
    out_ = column_sums, features_ = chunks.features;
    in_lanes_ = chunks.length == 0;
    // As many short rows as fill at least four registers are added lane by lane, and folded at the end.
    if (in_lanes_) width_ = (4 * kLine + int(features_) - 1) / int(features_) * int(features_);
    T* const sums = in_lanes_ ? lanes_ : out_;
    for (int64_t i = 0; i < (in_lanes_ ? width_ : features_); ++i) sums[i] = 0;
  }

  void add(const Chunk& c, const T* __restrict from) {
    if (!in_lanes_) return add_run(from, c.n, out_ + c.column);
    int done = 0;
    for (; done + width_ <= c.n; done += width_) add_run(from + done, width_, lanes_);
    add_run(from + done, c.n - done, lanes_);
  }

  void close() {
    for (int64_t i = 0; in_lanes_ && i < features_; ++i) {
      double total = 0;
      for (int64_t lane = i; lane < width_; lane += features_) total += double(lanes_[lane]);
      out_[i] = T(total);
    }
  }

 private:
  static void add_run(const T* __restrict from, int n, T* __restrict sums) {
    for (int i = 0; i < n; ++i) sums[i] += from[i];
  }

  T* out_ = nullptr;  // [features]
  int64_t features_ = 0;
  bool in_lanes_ = false;
  int width_ = 0;
  alignas(64) T lanes_[kBuffer + 4 * kLine];
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
