#include "ops/device.h"

#include <ATen/core/ATen_fwd.h>

#include "ops/cuda/runtime.h"

namespace pyvae {
namespace cuda {
namespace {

constexpr Device kDevice = {.is_runnable = is_runnable, .draws_seeds = kDrawsSeeds};
const bool kIsRegistered = (registered<Device>(at::PYVAE_DEVICE_TYPE) = &kDevice);

}  // namespace
}  // namespace cuda
}  // namespace pyvae
