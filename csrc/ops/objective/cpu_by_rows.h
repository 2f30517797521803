// Decoder side on the CPU, row by row: likelihoods with parameters, and those by softmax.
#pragma once

#include "ops/cpu/tensors.h"
#include "ops/objective/gradients.h"

namespace pyvae {
namespace cpu {

// The likelihood of each row, if `sums` are asked for, and the gradients of the output mask times factor times upstream
// [rows].
Gradients run_by_rows(const LikelihoodArguments& a, int64_t output_mask, double factor, const double* upstream,
                      Doubles* sums);

}  // namespace cpu
}  // namespace pyvae
