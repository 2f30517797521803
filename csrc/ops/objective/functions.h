// The decoder side's functions that each device implements. Their arguments are already checked. implement.h registers
// them as operators, behind the checks; a plain call (ops/dispatch.h) calls them directly.
#pragma once

#include <ATen/TensorOperators.h>

#include "ops/codes.h"
#include "ops/objective/gradients.h"

namespace pyvae {

// How to return the loss's two terms besides the loss: not at all; as tensors; or as tensors that share no memory, as
// an operator must return them.
enum class TermOutputs { kSkip, kMayShareStorage, kOwnStorage };

struct ObjectiveFunctions {
  // (loss, reconstruction term, KL term), [B] without reduction, else scalars; and the gradients of the reconstruction
  // term that are in the output mask, computed in the same pass. With kSkip the second and third may be undefined.
  std::tuple<Tensor, Tensor, Tensor, Gradients> (*forward)(const ElboArguments&, int64_t output_mask, TermOutputs);
  // The value of each element, in recon's shape and the compute dtype; and the gradients of their sum that are in the
  // output mask.
  std::tuple<Tensor, Gradients> (*elements)(const LikelihoodArguments&, int64_t output_mask);
  // upstream[b] * weight * the derivatives of the value, each with the shape and dtype of the input that it is the
  // gradient of; upstream [B].
  Gradients (*gradient)(const LikelihoodArguments&, const Tensor& upstream, int64_t output_mask);
  // The backward pass of a call whose gradients forward has computed. Multiplies `gradient` (recon's) and
  // parameter_gradients (those that are left) by grad_loss + grad_recon, in place. If `to_kl`, also uses the KL's
  // upstream gradient mean * (beta grad_loss + grad_kl): returns the gradients of mu and scale or, without those, that
  // gradient itself: [B] without reduction, else a scalar, the same for all rows. Gradients that are not computed are
  // undefined.
  std::tuple<Tensor, Tensor, Tensor> (*backward_)(const ElboArguments&, const OptionalTensor& gradient,
                                                  at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                                  const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                                  bool to_kl);
  // Without reduction each row has its own upstream gradient. If all are equal, sums over rows are multiples of what
  // forward computed; if they differ, the sums are computed again. compares_rows: the host can compare them.
  bool compares_rows = false;
  // Or the device compares them. Like backward_; the gradients, which forward or `gradient` computed with kKept in the
  // mask, become the call's gradients.
  std::tuple<Tensor, Tensor, Tensor> (*backward_rows_)(const ElboArguments&, Gradients& gradients,
                                                       const OptionalTensor& grad_loss,
                                                       const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                                       bool to_kl) = nullptr;
};

// The factor of the terms' sums, and thus of the gradients.
inline double mean_of(const ElboArguments& a) {
  return a.reduction == kBatchMean ? 1.0 / double(a.recon.size(0)) : 1.0;
}

// beta, as far as the host can read it without waiting: a beta_tensor on a device is a separate factor.
inline double beta_of(const ElboArguments& a) {
  return a.beta_tensor && a.beta_tensor->is_cpu() ? a.beta * a.beta_tensor->item<double>() : a.beta;
}

// The upstream gradient of the reconstruction term: the sum of the given gradients of the loss and of the term itself.
// At least one is given.
inline Tensor upstream_of(const OptionalTensor& grad_loss, const OptionalTensor& grad_recon) {
  if (!grad_loss || !grad_recon) return grad_loss ? *grad_loss : *grad_recon;
  return *grad_loss + *grad_recon;
}

// Reshapes upstream, [B] or a scalar, so that it multiplies `gradient` [B, ...].
inline Tensor aligned_rows(const Tensor& upstream, const Tensor& gradient) {
  if (upstream.dim() == 0) return upstream;
  c10::DimVector sizes(size_t(gradient.dim()), 1);
  sizes[0] = upstream.size(0);
  return upstream.reshape(sizes);
}

}  // namespace pyvae
