// From an operator's arguments to the kernels' operands: the tensors are kept here while the kernels run.
#pragma once

#include <utility>

#include "operand.h"
#include "ops/arguments.h"

namespace pyvae {

// The kernels follow at most kMaxDims strides: a tensor of more dimensions is read from a contiguous copy, and what
// they write in its shape is contiguous. With fewer it has the strides of `tensor`.
Tensor empty_like_operand(const Tensor& tensor, at::TensorOptions options = {});

// For the samples: as `mu` without `samples`, else contiguous, [samples, B, ...].
Tensor empty_sample(const LatentArguments& a);

// For a value per row: [B] without reduction, else a scalar.
Tensor empty_reduced(const Tensor& like, int64_t reduction, at::ScalarType type);

// The range of a logvar in numbers, on each side infinite where there is none. Refuses an empty one.
std::pair<double, double> bounds_of(const OptionalTensor& low, const OptionalTensor& high);

struct LatentTensors {
  Tensor mu, scale;
  Tensor eps, z, grad_z;                                                                       // undefined: absent
  Tensor grad_mu, grad_scale;                                                                  // undefined: absent
  Tensor prior_mean, prior_scale, elements, grad_elements, grad_prior_mean, grad_prior_scale;  // undefined: absent

  explicit LatentTensors(const LatentArguments& a);  // of the two distributions alone
  // With the noise, and the gradients of z and, if each element has its own, of the divergence.
  LatentTensors(const LatentArguments& a, const OptionalTensor& grad, const OptionalTensor& grad_kl = std::nullopt);
  void lay_out(const LatentArguments& a, LatentOperands& out) const;
};

// In recon's shape; a number for weight or pos_weight stays one.
struct LikelihoodTensors {
  Tensor recon, target;
  Tensor weight, pos_weight, elements, gradient;                           // undefined: absent
  Tensor parameters[kMaxParameters], parameter_gradients[kMaxParameters];  // likewise
  double weight_number = 1, pos_weight_number = 1;
  int64_t samples = 1;  // that recon holds of each of target's rows

  LikelihoodTensors() = default;
  explicit LikelihoodTensors(const LikelihoodArguments& a);
  // `in_order`: features are numbered in the logical order, which sums per column are.
  void lay_out(const LikelihoodArguments& a, ObjectiveOperands& out, bool in_order = false) const;
};

}  // namespace pyvae
