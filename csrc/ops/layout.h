// Converts an operator's arguments to the kernels' operands. These structs keep the tensors alive while the kernels
// run.
#pragma once

#include <utility>

#include "operand.h"
#include "ops/arguments.h"

namespace pyvae {

// The kernels handle at most kMaxDims strides. A tensor with more dimensions is read from a contiguous copy, and
// outputs in its shape are contiguous. With fewer dimensions, outputs have the strides of `tensor`.
Tensor empty_like_operand(const Tensor& tensor, at::TensorOptions options = {});

// An empty tensor for z: like `mu` without `samples`, else contiguous, [samples, B, ...].
Tensor empty_sample(const LatentArguments& a);

// An empty tensor for a value per row: [B] without reduction, else a scalar.
Tensor empty_reduced(const Tensor& like, int64_t reduction, at::ScalarType type);

// The range of a logvar as numbers, infinite on a side without a bound. Raises if low > high.
std::pair<double, double> bounds_of(const OptionalTensor& low, const OptionalTensor& high);

struct LatentTensors {
  Tensor mu, scale;
  Tensor eps, z, grad_z;                                                                       // undefined: absent
  Tensor grad_mu, grad_scale;                                                                  // undefined: absent
  Tensor prior_mean, prior_scale, elements, grad_elements, grad_prior_mean, grad_prior_scale;  // undefined: absent

  explicit LatentTensors(const LatentArguments& a);  // only the two distributions
  // Also with the noise and the gradient of z, and with the divergence's gradient if that is per element.
  LatentTensors(const LatentArguments& a, const OptionalTensor& grad, const OptionalTensor& grad_kl = std::nullopt);
  void lay_out(const LatentArguments& a, LatentOperands& out) const;
};

// Tensors in recon's shape; a scalar weight or pos_weight stays a number.
struct LikelihoodTensors {
  Tensor recon, target;
  Tensor weight, pos_weight, elements, gradient;                           // undefined: absent
  Tensor parameters[kMaxParameters], parameter_gradients[kMaxParameters];  // likewise
  double weight_number = 1, pos_weight_number = 1;
  int64_t samples = 1;  // samples in recon per row of target

  LikelihoodTensors() = default;
  explicit LikelihoodTensors(const LikelihoodArguments& a);
  // `in_order`: features are numbered in the logical order, which sums per column need.
  void lay_out(const LikelihoodArguments& a, ObjectiveOperands& out, bool in_order = false) const;
};

}  // namespace pyvae
