// The operands of log densities: contiguous, in the compute dtype. A tensor that is not so is copied; the copy is no
// larger than the tensor. This struct keeps the tensors alive while the kernels run.
#pragma once

#include "operand.h"
#include "ops/mixture/functions.h"

namespace pyvae {

struct MixtureTensors {
  at::ScalarType type;
  Tensor z, mean, scale;
  Tensor log_weight;  // [groups, K], undefined: equal

  MixtureTensors(const MixtureArguments& a, bool elements, MixtureOperands& out);
  Tensor made(const Tensor& tensor) const { return tensor.to(type).contiguous(); }
};

// normalizers [2, ...], shaped like the values: the largest terms, and the sums
void lay_out_normalizers(const Tensor& normalizers, MixtureOperands& out);

// Empty tensors for the values and the normalizers. The normalizers have no elements if they are not requested.
std::tuple<Tensor, Tensor> empty_values(const MixtureArguments& a, bool elements, bool with_normalizers,
                                        at::ScalarType type);

}  // namespace pyvae
