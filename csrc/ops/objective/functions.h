// What a device provides of the decoder side: plain functions of checked arguments. Registered behind the checks by
// implement.h; called directly where nothing lies between a call and its device (ops/dispatch.h).
#pragma once

#include <ATen/TensorOperators.h>

#include "ops/codes.h"
#include "ops/objective/gradients.h"

namespace pyvae {

// What to make of the loss's two terms, besides the loss: nothing; tensors; or tensors that share no memory, as an
// operator must return them.
enum class TermOutputs { kSkip, kMayShareStorage, kOwnStorage };

struct ObjectiveFunctions {
  // (loss, reconstruction term, KL term), [B] without reduction, else scalars; and the reconstruction term's gradients
  // that are in the output mask, made in the same pass. With kSkip the second and third may be undefined.
  std::tuple<Tensor, Tensor, Tensor, Gradients> (*forward)(const ElboArguments&, int64_t output_mask, TermOutputs);
  // The value of each element, in recon's shape and what it is computed in, and the gradients of their sum that are in
  // the output mask.
  std::tuple<Tensor, Gradients> (*elements)(const LikelihoodArguments&, int64_t output_mask);
  // upstream[b] * weight * the derivatives of the value, each with the shape and dtype of the input that it is the
  // gradient of; upstream [B].
  Gradients (*gradient)(const LikelihoodArguments&, const Tensor& upstream, int64_t output_mask);
  // The backward pass of a call whose gradients forward has written: `gradient`, recon's, and the others' (each where
  // there is one left) times grad_loss + grad_recon, in place. And, if `to_kl`, with the KL's upstream gradient
  // mean * (beta grad_loss + grad_kl): the gradients of mu and scale or, without those, of the KL, [B] without
  // reduction, else a scalar, the same for all rows. What there is no gradient of is undefined.
  std::tuple<Tensor, Tensor, Tensor> (*backward_)(const ElboArguments&, const OptionalTensor& gradient,
                                                  at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                                  const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                                  bool to_kl);
  // Without reduction each row has an upstream gradient. Where all are equal, sums over rows are a multiple of what
  // forward has made; where they differ, the sums are made again. On the host, if it can compare them:
  bool compares_rows = false;
  // Or on the device. As backward_; the gradients, which forward or `gradient` made with kKept in the mask, become
  // those of the call.
  std::tuple<Tensor, Tensor, Tensor> (*backward_rows_)(const ElboArguments&, Gradients& gradients,
                                                       const OptionalTensor& grad_loss,
                                                       const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                                       bool to_kl) = nullptr;
};

// The factor of the terms' sums, and so of the gradients.
inline double mean_of(const ElboArguments& a) {
  return a.reduction == kBatchMean ? 1.0 / double(a.recon.size(0)) : 1.0;
}

// beta, as far as it can be read without waiting for a device: a beta_tensor on one is another factor.
inline double beta_of(const ElboArguments& a) {
  return a.beta_tensor && a.beta_tensor->is_cpu() ? a.beta * a.beta_tensor->item<double>() : a.beta;
}

// The upstream gradient of the reconstruction term, by the loss and by itself, at least one of which is there.
inline Tensor upstream_of(const OptionalTensor& grad_loss, const OptionalTensor& grad_recon) {
  if (!grad_loss || !grad_recon) return grad_loss ? *grad_loss : *grad_recon;
  return *grad_loss + *grad_recon;
}

// upstream, [B] or a scalar, as a factor of `gradient` [B, ...].
inline Tensor aligned_rows(const Tensor& upstream, const Tensor& gradient) {
  if (upstream.dim() == 0) return upstream;
  c10::DimVector sizes(size_t(gradient.dim()), 1);
  sizes[0] = upstream.size(0);
  return upstream.reshape(sizes);
}

}  // namespace pyvae
