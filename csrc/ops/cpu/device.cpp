#include "ops/device.h"

#include "cpu/kernels.h"

namespace pyvae {
namespace cpu {
namespace {

constexpr Device kDevice = {.is_runnable = [](int) { return instruction_set() != nullptr; }, .draws_seeds = true};
const bool kIsRegistered = (registered<Device>(c10::DeviceType::CPU) = &kDevice);

}  // namespace
}  // namespace cpu
}  // namespace pyvae
