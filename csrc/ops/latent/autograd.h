// The encoder side's differentiable operators; the arguments are already checked (find_error).
#pragma once

#include <ATen/core/Generator.h>

#include "ops/arguments.h"

namespace pyvae {

// (z, kl); kl [B], or empty without `with_kl`.
std::tuple<Tensor, Tensor> reparameterize(const LatentArguments& a, bool with_kl);
// The same with a seed that the device draws from `generator` (none: its own).
std::tuple<Tensor, Tensor> reparameterize_drawn(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                                bool with_kl);
Tensor kl_divergence(const LatentArguments& a, int64_t reduction);

}  // namespace pyvae
