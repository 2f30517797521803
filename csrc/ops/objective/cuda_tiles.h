// Decoder side on CUDA: a call's tensors and its gradients', and the calls that go by tiles (cuda/kernels.h).
#pragma once

#include "ops/cuda/tensors.h"
#include "ops/objective/gradients.h"

namespace pyvae {
namespace cuda {

// A call's tensors with the gradients of the mask among them.
struct GradientTensors : LikelihoodTensors {
  ParameterGradients by_parameter;

  GradientTensors(const LikelihoodArguments& a, int64_t output_mask, bool with_elements = false);
  void lay_out(const LikelihoodArguments& a, ObjectiveOperands& out) const;
  Gradients finish() const;
};

// Counts, and likelihoods with parameters.
bool goes_by_tiles(const LikelihoodArguments& a);

// Launches the stages that a call has work for.
void forward_by_tiles(Call& call, const ElboArguments& a, const GradientTensors& tensors, const LossTerms& terms,
                      const Tensor& kl, bool by_row);  // kl: of each row, or their sum; undefined: 0
// The gradients alone, times upstream [B], or undefined: 1; and the elements, if `tensors` has a place for them.
void gradients_by_tiles(Call& call, const LikelihoodArguments& a, const GradientTensors& tensors,
                        const Tensor& upstream = Tensor());

}  // namespace cuda
}  // namespace pyvae
