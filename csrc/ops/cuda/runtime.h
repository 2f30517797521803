// What a CUDA operator needs of the runtime: device, stream, scratch memory, generator. runtime.cpp alone includes
// CUDA.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include <optional>

#include "cuda/kernels.h"

#ifndef PYVAE_DEVICE_KEY
#  define PYVAE_DEVICE_KEY CUDA  // where the operators are registered
#endif

namespace pyvae {
namespace cuda {

// One operator's call: makes the tensor's device current, and launches on its current stream.
class Call {
 public:
  Call(const char* function, const at::Tensor& tensor);

  // Room for the partial sums of `blocks` blocks; lives as long as the call.
  Workspace workspace(int64_t blocks);

  // The key of the noise: from a seed on this device or on the CPU.
  Key key(const at::Tensor& seed) const;
  // Or drawn from a generator (none: the device's own), and written to `out` [1], int64, by the kernel.
  Key draw(const std::optional<at::Generator>& generator, const at::Tensor& out) const;

  // Raises what CUDA says is wrong, and what helps.
  template <class Arguments>
  void launch(const Arguments& arguments) const {
    check(cuda::launch(arguments, stream_));
  }

 private:
  void check(const char* error) const;

  const char* function_;
  c10::OptionalDeviceGuard guard_;
  int device_;
  void* stream_;  // cudaStream_t
  at::Tensor partials_, ticket_;
};

// Whether the kernels can run on a device: whether the build holds machine code, or PTX, for it.
bool is_runnable(int device);

// Whether a call's seed is drawn by the kernel on this tensor's device, rather than on the CPU.
bool draws_on_device(const at::Tensor& tensor);

}  // namespace cuda
}  // namespace pyvae
