// What a CUDA operator needs from the runtime: device, stream, scratch memory, generator. Only runtime.cpp includes
// CUDA.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include <optional>

#include "cuda/kernels.h"

#ifndef PYVAE_DEVICE_KEY
#  define PYVAE_DEVICE_KEY CUDA    // where the operators are registered
#  define PYVAE_DEVICE_TYPE kCUDA  // the device of their tensors
#endif

namespace pyvae {
namespace cuda {

// One call of an operator: makes the tensor's device current, and launches on its current stream.
class Call {
 public:
  Call(const char* function, const at::Tensor& tensor);

  // Memory for the partial sums of `blocks` blocks; it lives as long as the call.
  Workspace workspace(int64_t blocks);

  // The noise's seed: from a tensor on this device or on the CPU.
  Seed seed(const at::Tensor& given) const;
  // Or drawn from a generator (none: the device's own). The tensor [1] is the seed for the backward pass: a captured
  // kernel writes it on the device; otherwise it is a number on the CPU.
  std::pair<Seed, at::Tensor> draw(const std::optional<at::Generator>& generator) const;

  // Launches, and raises CUDA's error with a hint.
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

// Whether the kernels can run on a device, that is, whether the build has machine code or PTX for it.
bool is_runnable(int device);

// Whether eager calls let the kernel draw the seed (not in tests that compare with the CPU's seeds).
#ifdef PYVAE_SEEDS_FROM_PYTHON
constexpr bool kDrawsSeeds = false;
#else
constexpr bool kDrawsSeeds = true;
#endif

}  // namespace cuda
}  // namespace pyvae
