// The devices that the operators run on, and a registry of each device's functions.
#pragma once

#include <c10/core/DeviceType.h>

#include <array>

namespace pyvae {

struct Device {
  // Whether the kernels can run on the device of this index.
  bool (*is_runnable)(int index);
  // Whether eager calls without a seed draw it by latent_draw, rather than in Python.
  bool draws_seeds;
};

// The entry registered for a device type: its Device (cpu/device.cpp, cuda/device.cpp), or an operator's functions on
// it (latent/functions.h, objective/functions.h). Null if nothing is registered.
template <class Entry>
const Entry*& registered(c10::DeviceType type) {
  static std::array<const Entry*, c10::COMPILE_TIME_MAX_DEVICE_TYPES> entries{};
  return entries[size_t(type)];
}

}  // namespace pyvae
