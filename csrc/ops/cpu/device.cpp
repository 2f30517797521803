#include "ops/cpu/device.h"

#include "ops/implement.h"

namespace pyvae {
namespace cpu {

extern const Device kDevice;
const Device kDevice = {
    [](int) { return instruction_set() != nullptr; },
    /*draws_seeds=*/true,
    latent_forward,
    latent_draw,
    latent_backward,
    elbo_forward,
    elbo_gradient,
    elbo_backward_,
};

}  // namespace cpu

TORCH_LIBRARY_IMPL(pyvae, CPU, m) { implement<cpu::kDevice>(m, at::kCPU); }

}  // namespace pyvae
