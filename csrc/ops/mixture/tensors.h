// The operands of log densities, in the type that is computed in and contiguous. What was not so is a copy, no larger
// than it. The tensors are kept here while the kernels run.
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

// normalizers [2, ...], of the values' shape: the largest terms, and the sums
void lay_out_normalizers(const Tensor& normalizers, MixtureOperands& out);

// The values, and the normalizers, empty where they are not wanted.
std::tuple<Tensor, Tensor> empty_values(const MixtureArguments& a, bool elements, bool with_normalizers,
                                        at::ScalarType type);

}  // namespace pyvae
