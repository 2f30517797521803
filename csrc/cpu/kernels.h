// The CPU kernels' interface: raw pointers and plain structs, no torch. kernels.cpp is compiled once per instruction
// set; dispatch.cpp chooses one table of kernels when the library is loaded.
#pragma once

#include "cpu/tuning.h"
#include "operand.h"

namespace pyvae {
namespace cpu {

// A part of one row, or several whole rows: elements [first, first + n), numbered row by row.
struct Chunk {
  int64_t first;
  int n;
  int64_t row;  // the first of them
  int rows;     // 1 of a part
  int64_t column;
  int features;  // that each of the rows has in here
};

// How a call is cut into chunks. It depends on the shape alone, never on threads or instruction sets, so that sums are
// repeatable to the bit. A chunk is a part of one row, or several whole rows where rows are short.
struct Chunks {
  PYVAE_HD explicit Chunks(const Shape& shape) : features(shape.features), rows(shape.rows) {
    if (features > kChunk) {
      per_row = (features + kChunk - 1) / kChunk;
      const int64_t even = (features + per_row - 1) / per_row;
      length = (even + kLine - 1) / kLine * kLine;
      per_row = (features + length - 1) / length;
      count = rows * per_row;
    } else {
      rows_each = features > 0 ? kChunk / features : kChunk;
      count = (rows + rows_each - 1) / rows_each;
    }
  }

  // Sums are returned as `partials()` numbers, `per_row` to a row.
  PYVAE_HD int64_t partials() const { return rows * per_row; }

  PYVAE_HD Chunk operator[](int64_t index) const {
    if (length > 0) {
      const int64_t row = index / per_row, column = index % per_row * length, rest = features - column;
      const int n = int(rest < length ? rest : length);
      return {row * features + column, n, row, 1, column, n};
    }
    const int64_t row = index * rows_each, rest = rows - row;
    const int whole = int(rest < rows_each ? rest : rows_each);
    return {row * features, int(whole * features), row, whole, 0, int(features)};
  }

  int64_t features, rows;
  int64_t count = 0;
  int64_t per_row = 1, length = 0;  // of long rows
  int64_t rows_each = 1;            // of short ones
};

// What threads share of the objective: a chunk, or several: whole rows for a softmax, and for sums per column at least
// kGroupRows of them.
struct Units {
  PYVAE_HD Units(const Chunks& chunks, bool whole_rows, bool with_columns) {
    const int64_t group = with_columns ? kGroupRows : 1;
    if (chunks.length > 0) {
      chunks_each = whole_rows || with_columns ? group * chunks.per_row : 1;
    } else {
      chunks_each = (group + chunks.rows_each - 1) / chunks.rows_each;
    }
    count = (chunks.count + chunks_each - 1) / chunks_each;
  }
  int64_t chunks_each, count;
};

struct LatentForward : LatentOperands {
  uint64_t seed = 0;
  double* divergence = nullptr;  // [partials], written; null: not wanted
};

struct LatentBackward : LatentOperands {
  uint64_t seed = 0;
  const double* grad_kl = nullptr;  // [rows]; null: 0
};

// Where an array of results goes besides the memory of its elements. What is null is not wanted.
struct Sums {
  double* rows = nullptr;    // [partials], written
  double* chunks = nullptr;  // [chunks], written
};

struct Objective : ObjectiveOperands {
  const double* upstream = nullptr;  // [rows], a factor of the gradients; null: 1
  Sums value;                        // before factor and upstream
  Sums by_parameter[kMaxParameters];
  void* column_sums[kMaxParameters] = {};  // [units, features] of T, of a parameter's gradient, written; null: unwanted
  const double* log_library = nullptr;     // [rows]; null: 0
  double* library_gradient = nullptr;      // [rows], written; null: not wanted

  PYVAE_HD bool has_column_sums() const {
    bool any = false;
    for (void* const sums : column_sums) any |= sums != nullptr;
    return any;
  }
  PYVAE_HD Units units() const { return Units(Chunks(shape), softmax, has_column_sums()); }
};

struct Mixture : MixtureOperands {
  // Where a group has several parts, what backward adds up over each: [units, sums_each]. Else null.
  double* sums = nullptr;

  PYVAE_HD int64_t cells() const { return components * features; }
  PYVAE_HD int64_t width() const { return elements ? features : 1; }  // of a row's values
  // Of each cell r y and r y^2; and r, once for each value.
  PYVAE_HD int64_t sums_each() const { return 2 * cells() + components * width(); }

  // Whether it is a posterior's density, a Gaussian for each sample of the batch; and that posterior's elements.
  PYVAE_HD bool is_posterior() const { return components == 1 && groups > 1 && !log_weight; }
  PYVAE_HD Shape posterior() const { return Shape{groups, features, 0, {}}; }
  // Of a mixture, whether vectors go over features, rather than over rows.
  PYVAE_HD bool by_features() const { return components == 1 || (!elements && rows < kFewRows * groups); }
};

// What threads share of a mixture's rows: for each group of components, its rows in equal parts. Row i of group g is
// number i * groups + g. The backward pass has few parts where their sums would take much memory. Of a posterior it is
// the chunks of its short rows, or its long rows.
struct MixtureUnits {
  PYVAE_HD MixtureUnits(const Mixture& a, bool backward) : group_rows(a.groups > 0 ? a.rows / a.groups : 0) {
    parts = (group_rows + kStripRows - 1) / kStripRows;
    const int64_t sums = a.groups * a.cells(), room = kMixturePartials / (sums > 0 ? sums : 1);
    if (backward && parts > room) parts = room > 1 ? room : 1;
    if (parts < 1 || a.is_posterior()) parts = 1;
    const int64_t even = (group_rows + parts - 1) / parts;
    rows_each = (even + kTileRows - 1) / kTileRows * kTileRows;
    if (rows_each > 0) parts = (group_rows + rows_each - 1) / rows_each;
    count = a.groups * parts;
    if (!a.is_posterior()) return;
    const Chunks chunks(a.posterior());
    rows_each = group_rows;
    if (chunks.length == 0) count = chunks.count, rows_each *= chunks.rows_each;
  }
  int64_t group_rows, parts, rows_each, count;
};

// Each kernel works on chunks [begin, end) of the call's Chunks, the objective on units of them; they are independent
// of each other.
struct Kernels {
  bool (*latent_forward)(const LatentForward&, int64_t begin, int64_t end);  // false: a standard deviation below 0
  void (*latent_backward)(const LatentBackward&, int64_t begin, int64_t end);
  // False: a probability or a Bernoulli target outside [0, 1], or a negative count. `scratch`: as many numbers of T as
  // objective_scratch says, aligned to 64 bytes, for each thread.
  bool (*objective)(const Objective&, int64_t begin, int64_t end, void* scratch);
  int64_t (*objective_scratch)(const Objective&);
  // Of units [begin, end). False: a standard deviation below 0. `scratch`: bytes, aligned to 64, for each thread.
  bool (*mixture_forward)(const Mixture&, int64_t begin, int64_t end, void* scratch);
  void (*mixture_backward)(const Mixture&, int64_t begin, int64_t end, void* scratch);
  // The gradients of groups' components from the sums of several parts: chunks [begin, end) of groups * cells.
  void (*mixture_finish)(const Mixture&, int64_t begin, int64_t end);
  int64_t (*mixture_scratch)(const Mixture&, bool backward);
};

struct InstructionSet {
  const char* name;
  Kernels in_float;   // for 16- and 32-bit operands
  Kernels in_double;  // where an operand is float64
};

// The kernels for this machine, or null if it has no fused multiply-add (in software the kernels would be slower than
// the reference). ATEN_CPU_CAPABILITY=default|avx2|avx512 lowers the choice, as it does for torch itself.
const InstructionSet* instruction_set();

}  // namespace cpu
}  // namespace pyvae
