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
  int64_t row;  // the first row
  int rows;     // 1 if the chunk is a part of a row
  int64_t column;
  int features;  // elements per row in this chunk
};

// How a call is split into chunks. This depends only on the shape, never on threads or instruction sets, so sums are
// bitwise reproducible. A chunk is a part of one row, or several whole rows if rows are short.
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

  // The kernels return `partials()` partial sums, `per_row` for each row.
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
  int64_t per_row = 1, length = 0;  // for long rows
  int64_t rows_each = 1;            // for short rows
};

// The unit of work that a thread takes in the objective: one chunk, or several. A softmax needs whole rows; sums per
// column need at least kGroupRows whole rows.
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
  double* divergence = nullptr;  // [partials], written; null: skipped
};

struct LatentBackward : LatentOperands {
  uint64_t seed = 0;
  const double* grad_kl = nullptr;  // [rows]; null: 0
};

// Sums of an array of results, besides the array itself. Null: skipped.
struct Sums {
  double* rows = nullptr;    // [partials], written
  double* chunks = nullptr;  // [chunks], written
};

struct Objective : ObjectiveOperands {
  const double* upstream = nullptr;  // [rows], multiplies the gradients; null: 1
  Sums value;                        // before factor and upstream
  Sums by_parameter[kMaxParameters];
  void* column_sums[kMaxParameters] = {};  // [units, features] of T, a parameter's gradient, written; null: skipped
  const double* log_library = nullptr;     // [rows]; null: 0
  double* library_gradient = nullptr;      // [rows], written; null: skipped

  PYVAE_HD bool has_column_sums() const {
    bool any = false;
    for (void* const sums : column_sums) any |= sums != nullptr;
    return any;
  }
  PYVAE_HD Units units() const { return Units(Chunks(shape), softmax, has_column_sums()); }
};

struct Mixture : MixtureOperands {
  // [units, sums_each], the sums of backward over each part, if a group has several parts; else null.
  double* sums = nullptr;

  PYVAE_HD int64_t cells() const { return components * features; }
  PYVAE_HD int64_t width() const { return elements ? features : 1; }  // number of values per row
  // Two sums per cell, of r y and r y^2, and one sum of r for each component's values.
  PYVAE_HD int64_t sums_each() const { return 2 * cells() + components * width(); }

  // Whether the call is a posterior's density, with one Gaussian per sample of the batch; and the posterior's shape.
  PYVAE_HD bool is_posterior() const { return components == 1 && groups > 1 && !log_weight; }
  PYVAE_HD Shape posterior() const { return Shape{groups, features, 0, {}}; }
  // For a mixture: whether SIMD vectors run over features, rather than over rows.
  PYVAE_HD bool by_features() const { return components == 1 || (!elements && rows < kFewRows * groups); }
};

// The units of a mixture that threads take: the rows of each group of components, in equal parts. Row i of group g has
// index i * groups + g. The backward pass uses few parts if their sums would need much memory. For a posterior, a unit
// is one chunk of short rows, or one long row.
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

// Each kernel computes chunks [begin, end) of the call's Chunks; the objective computes units of them. They are
// independent of each other.
struct Kernels {
  bool (*latent_forward)(const LatentForward&, int64_t begin, int64_t end);  // false: a negative standard deviation
  void (*latent_backward)(const LatentBackward&, int64_t begin, int64_t end);
  // Returns false for a probability or a Bernoulli target outside [0, 1], or for a negative count. `scratch`:
  // objective_scratch numbers of T per thread, aligned to 64 bytes.
  bool (*objective)(const Objective&, int64_t begin, int64_t end, void* scratch);
  int64_t (*objective_scratch)(const Objective&);
  // Computes units [begin, end). Returns false for a standard deviation below 0. `scratch`: mixture_scratch bytes per
  // thread, aligned to 64.
  bool (*mixture_forward)(const Mixture&, int64_t begin, int64_t end, void* scratch);
  void (*mixture_backward)(const Mixture&, int64_t begin, int64_t end, void* scratch);
  // Computes the components' gradients from the sums of several parts: chunks [begin, end) of groups * cells.
  void (*mixture_finish)(const Mixture&, int64_t begin, int64_t end);
  int64_t (*mixture_scratch)(const Mixture&, bool backward);
};

struct InstructionSet {
  const char* name;
  Kernels in_float;   // for 16- and 32-bit operands
  Kernels in_double;  // if an operand is float64
};

// The kernels for this machine, or null if it has no fused multiply-add (in software the kernels would be slower than
// the reference). ATEN_CPU_CAPABILITY=default|avx2|avx512 lowers the choice, as it does for torch itself.
const InstructionSet* instruction_set();

}  // namespace cpu
}  // namespace pyvae
