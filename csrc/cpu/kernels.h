// The CPU kernels' interface: raw pointers and plain structs, no torch. kernels.cpp is compiled once per instruction
// set; dispatch.cpp chooses one table of kernels when the library is loaded.
#pragma once

#include "operand.h"

namespace pyvae {
namespace cpu {

// How a call is cut into chunks. It depends on the shape alone, never on threads or instruction sets, so that sums are
// repeatable to the bit. A chunk is a part of one row, or several whole rows where rows are short.
struct Partition {
  static constexpr int kChunk = 512;  // elements; its buffers stay in the first-level cache

  PYVAE_HD explicit Partition(const Shape& shape) : features(shape.features), rows(shape.rows) {
    if (features > kChunk) {
      chunks_per_row = (features + kChunk - 1) / kChunk;
      const int64_t even = (features + chunks_per_row - 1) / chunks_per_row;
      length = (even + 15) / 16 * 16;
      chunks_per_row = (features + length - 1) / length;
      chunks = rows * chunks_per_row;
    } else {
      rows_per_chunk = features > 0 ? kChunk / features : kChunk;
      chunks = (rows + rows_per_chunk - 1) / rows_per_chunk;
    }
  }

  // Sums are returned as `partials()` numbers, `chunks_per_row` to a row.
  PYVAE_HD int64_t partials() const { return rows * chunks_per_row; }

  int64_t features, rows;
  int64_t chunks = 0;
  int64_t chunks_per_row = 1, length = 0;  // of long rows
  int64_t rows_per_chunk = 1;              // of short ones
};

// Encoder side. Forward: z = mu + sigma eps and KL(q || N(0, 1)); either may be left out.
struct LatentForward {
  Shape shape;
  Operand mu, scale;   // [rows, features]
  Operand eps;         // [rows, features]; absent: drawn from (seed, offset)
  Operand z;           // [rows, features], written; absent: no sample
  double* divergence;  // [partials], written; null: not wanted
  uint64_t seed, offset;
  uint64_t first_index;  // global index of element 0: row_offset * features
  int scale_kind;        // PYVAE_SCALES
};

// Backward: grad_mu = g_z + g_kl mu; grad_scale = g_z eps dsigma/ds + g_kl dKL/ds.
struct LatentBackward {
  Shape shape;
  Operand mu, scale, eps;       // as in forward
  Operand grad_z;               // [rows, features]; absent: 0
  const double* grad_kl;        // [rows]; null: 0
  Operand grad_mu, grad_scale;  // [rows, features], written
  uint64_t seed, offset, first_index;
  int scale_kind;
};

// Decoder side: sum of the negative log-likelihood, and its gradient, in one pass.
struct Objective {
  Shape shape;
  Operand recon, target;       // [rows, features]
  Operand weight, pos_weight;  // [rows, features] or absent
  Operand gradient;        // [rows, features], written: factor * upstream[row] * weight * d value / d recon; or absent
  const double* upstream;  // [rows]; null: 1
  double factor;
  double* sums;    // [partials], written; null: not wanted
  int likelihood;  // PYVAE_LIKELIHOODS
};

// Each kernel works on chunks [begin, end) of the call's Partition; chunks are independent of each other.
template <class T>
struct Kernels {
  void (*latent_forward)(const LatentForward&, int64_t begin, int64_t end);
  void (*latent_backward)(const LatentBackward&, int64_t begin, int64_t end);
  bool (*objective)(const Objective&, int64_t begin, int64_t end);  // false: a probability outside [0, 1]
};

struct Table {
  const char* isa;
  Kernels<float> in_float;    // for 16- and 32-bit operands
  Kernels<double> in_double;  // where an operand is float64
};

// The table for this machine, or null if it has no fused multiply-add (in software the kernels would be slower than
// the reference). ATEN_CPU_CAPABILITY=default|avx2|avx512 lowers the choice, as it does for torch itself.
const Table* table();

}  // namespace cpu
}  // namespace pyvae
