// The CPU kernels' interface: raw pointers and plain structs, no torch. kernels.cpp is compiled once per instruction
// set; dispatch.cpp chooses one table of kernels when the library is loaded.
#pragma once

#include "cpu/tuning.h"
#include "operand.h"

namespace pyvae {
namespace cpu {

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

  int64_t features, rows;
  int64_t count = 0;
  int64_t per_row = 1, length = 0;  // of long rows
  int64_t rows_each = 1;            // of short ones
};

struct LatentForward : LatentOperands {
  uint64_t seed = 0;
  double* divergence = nullptr;  // [partials], written; null: not wanted
};

struct LatentBackward : LatentOperands {
  uint64_t seed = 0;
  const double* grad_kl = nullptr;  // [rows]; null: 0
};

struct Objective : ObjectiveOperands {
  const double* upstream = nullptr;  // [rows], a factor of the gradients; null: 1
  double* sums = nullptr;            // [partials], or by rows [rows], written; null: not wanted

  // By rows.
  const double* log_library = nullptr;     // [rows]; null: 0
  double* library_gradient = nullptr;      // [rows], written; null: not wanted
  double* row_sums[kMaxParameters] = {};   // [rows], of a parameter's gradient, written; null: not wanted
  void* column_sums[kMaxParameters] = {};  // [groups, features] of T, likewise
};

// How a call by rows is cut: into groups of rows, by the shape alone; where there are sums per column, of more than
// one.
struct Groups {
  PYVAE_HD Groups(const Shape& shape, bool with_columns)
      : rows(shape.rows), rows_each(with_columns ? kGroupRows : 1), count((rows + rows_each - 1) / rows_each) {}
  int64_t rows, rows_each, count;
};

// Each kernel works on chunks [begin, end) of the call's Chunks, or (by rows) of its Groups; they are independent of
// each other.
struct Kernels {
  bool (*latent_forward)(const LatentForward&, int64_t begin, int64_t end);  // false: a standard deviation below 0
  void (*latent_backward)(const LatentBackward&, int64_t begin, int64_t end);
  // False: a probability or a Bernoulli target outside [0, 1], or a negative count.
  bool (*objective)(const Objective&, int64_t begin, int64_t end);
  // `scratch`: room for a row's derivatives, [features] of T, where they go through a softmax.
  bool (*objective_by_rows)(const Objective&, int64_t begin, int64_t end, void* scratch);
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
