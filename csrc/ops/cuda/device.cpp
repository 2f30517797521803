#include "ops/cuda/device.h"

#include "ops/cuda/runtime.h"
#include "ops/implement.h"

namespace pyvae {
namespace cuda {

extern const Device kDevice;
const Device kDevice = {
    is_runnable, kDrawsSeeds, latent_forward, latent_draw, latent_backward, elbo_forward, elbo_gradient, elbo_backward_,
};

}  // namespace cuda

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) { implement<cuda::kDevice>(m, at::PYVAE_DEVICE_TYPE); }

}  // namespace pyvae
