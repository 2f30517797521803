// Decoder side on CUDA, row by row: likelihoods with parameters, and those by softmax.
#pragma once

#include "ops/cuda/tensors.h"
#include "ops/gradients.h"

namespace pyvae {
namespace cuda {

// Fills in and launches `o`, whose results and KL are set: all that is wanted of it, and the wanted gradients times
// o.factor times upstream [B] (undefined: 1).
Gradients run_by_rows(Call& call, const LikelihoodArguments& a, int64_t wanted, const Tensor& upstream,
                      ObjectiveByRows& o);

}  // namespace cuda
}  // namespace pyvae
