// What a likelihood prepares from its parameters, computed as rarely as possible: once per call if every row has the
// same parameters, once per row if each row has one number, otherwise inside the loop.
#pragma once

#include "cpu/evaluate.h"
#include "cpu/source.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
class Prepared {
 public:
  // The number of elements of a row, or of the longest chunk of short rows, rounded up to whole registers.
  static int64_t width(const Chunks& chunks) { return chunks.length > 0 ? chunks.per_row * chunks.length : kBuffer; }
  static int64_t scratch(const Loops<T>& loops, const Chunks& chunks) { return loops.prepared * width(chunks); }

  Prepared(const Loops<T>& loops, const Chunks& chunks, T* scratch)
      : loops_(loops), chunks_(chunks), scratch_(scratch), width_(width(chunks)) {}

  // Prepares a chunk's parameters into `out` and returns their form; kParameters: nothing is prepared.
  Given operator()(Source<T>* parameters, const Chunk& c, const T** out) {
    bool numbers = true, repeats = true, per_row = c.rows > 1;
    for (int k = 0; k < loops_.reads; ++k) {
      numbers &= parameters[k].is_number(c), repeats &= parameters[k].repeats(), per_row &= parameters[k].is_per_row();
    }
    // With fewer chunks the result would not be reused often enough.
    const bool shared = repeats && chunks_.count >= (chunks_.length > 0 ? 4 * chunks_.per_row : 2);
    if (!numbers && !shared && !per_row) return kParameters;

    T* to[kMaxPrepared];
    for (int k = 0; k < loops_.prepared; ++k) {
      to[k] = numbers ? &numbers_[k] : scratch_ + k * width_ + c.column;
      out[k] = to[k];
    }
    if (numbers) {
      prepare_number(parameters, c, to);
    } else if (per_row) {
      prepare_rows(parameters, c, to);
    } else if (c.column >= ready_) {
      run(parameters, c, to);
      ready_ = c.column + c.features;
    }
    return numbers ? kPreparedNumbers : kPrepared;
  }

 private:
  void prepare_number(Source<T>* parameters, const Chunk& c, T* const* to) {
    if (number_row_ == c.row) return;
    const T* in[kMaxParameters + 1];
    bool same = number_row_ >= 0;
    for (int k = 0; k < loops_.reads; ++k) in[k] = parameters[k](c), same &= parameters[k].repeats();
    number_row_ = c.row;
    if (!same) loops_.prepare(in, 1, to);
  }

  PYVAE_NOINLINE void prepare_rows(Source<T>* parameters, const Chunk& c, T* const* to) {
    alignas(64) T given[kMaxParameters + 1][kBuffer];
    alignas(64) T few[kMaxPrepared][kBuffer];
    const T* in[kMaxParameters + 1];
    T* ready[kMaxPrepared];
    for (int k = 0; k < loops_.reads; ++k) parameters[k].per_row(c, given[k]), in[k] = given[k];
    for (int k = 0; k < loops_.prepared; ++k) ready[k] = few[k];
    loops_.prepare(in, c.rows, ready);
    for (int k = 0; k < loops_.prepared; ++k) repeat_rows(few[k], c.rows, c.features, to[k]);
  }

  PYVAE_NOINLINE void run(Source<T>* parameters, const Chunk& c, T* const* to) {
    const T* in[kMaxParameters + 1];
    for (int k = 0; k < loops_.reads; ++k) in[k] = parameters[k](c);
    // Of several chunks of short rows none is longer than the first.
    loops_.prepare(in, chunks_.length > 0 ? c.n : int(chunks_.rows_each) * c.features, to);
  }

  const Loops<T>& loops_;
  const Chunks& chunks_;
  T* const scratch_;  // [prepared, width]
  const int64_t width_;
  int64_t ready_ = 0;        // columns that are prepared
  int64_t number_row_ = -1;  // the row of numbers_
  T numbers_[kMaxPrepared];
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
