#include "ops/autograd.h"

namespace pyvae {

ReferenceGradient& reference_gradient() {
  static ReferenceGradient function = [](const ReferenceCall& call) -> variable_list {
    TORCH_CHECK(false, "pyvae::", call.name, ": this gradient needs the Python package; import pyvae first");
  };
  return function;
}

}  // namespace pyvae
