// Decoder side on CUDA, row by row: likelihoods with parameters, and those by softmax.
#pragma once

#include "ops/cuda/tensors.h"
#include "ops/objective/gradients.h"

namespace pyvae {
namespace cuda {

// Fills in and launches `o`, whose results and KL are set: all that is asked of it, and the gradients of the
// output mask times o.factor times upstream [B] (undefined: 1).
Gradients run_by_rows(Call& call, const LikelihoodArguments& a, int64_t output_mask, const Tensor& upstream,
                      ObjectiveByRows& o);

}  // namespace cuda
}  // namespace pyvae
