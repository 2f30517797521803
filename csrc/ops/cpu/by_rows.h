// Decoder side on the CPU, row by row: likelihoods with parameters, and those by softmax.
#pragma once

#include <c10/util/FunctionRef.h>

#include "ops/cpu/device.h"
#include "ops/cpu/sums.h"

namespace pyvae {
namespace cpu {

// Shares `count` pieces of a call among threads, at least `grain` to each, and refuses data that the kernel found
// illegal.
void share(const LikelihoodArguments& a, int64_t count, int64_t grain,
           c10::function_ref<bool(int64_t begin, int64_t end)> kernel);

// The likelihood of each row, if `sums` are wanted, and the wanted gradients times factor times upstream [rows].
Gradients run_by_rows(const LikelihoodArguments& a, int64_t wanted, double factor, const double* upstream,
                      Doubles* sums);

}  // namespace cpu
}  // namespace pyvae
