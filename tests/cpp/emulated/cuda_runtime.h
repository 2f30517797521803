// The part of CUDA that csrc/cuda uses, for the CPU: with this folder first on the include path, g++ compiles a .cu
// file, unmodified, as C++17, and its kernels run. For tests where there is no GPU.
//
// A launch returns when its kernel has ended, and says nothing about speed. See emulator.cpp for what runs when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator.h"

// ---- the language ---------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline  // forcing it makes g++ ten times slower
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
// No other variable in a library of kernels is thread-local: this is how the emulator finds the shared ones.
#define __shared__ static thread_local
// CUDA takes `__shared__ alignas(16) T x[n]`, but alignas cannot follow `static`.
#define alignas(bytes) __attribute__((aligned(bytes)))

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

// ---- the threads of a block -----------------------------------------------------------------------------------------

inline void __syncthreads(emulated::Place place = emulated::Place::here()) {
  emulated::wait_for_block(false, "__syncthreads", place);
}
inline int __syncthreads_count(int vote, emulated::Place place = emulated::Place::here()) {
  return int(emulated::wait_for_block(vote, "__syncthreads_count", place));
}
inline int __syncthreads_or(int vote, emulated::Place place = emulated::Place::here()) {
  return emulated::wait_for_block(vote, "__syncthreads_or", place) > 0;
}
inline int __syncthreads_and(int vote, emulated::Place place = emulated::Place::here()) {
  return emulated::wait_for_block(!vote, "__syncthreads_and", place) == 0;
}
inline void __threadfence() {}

// ---- the lanes of a warp --------------------------------------------------------------------------------------------

namespace emulated {

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const char* operation, Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words of 4 and 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = wait_for_warp(mask, bits, source, operation, place).value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// The lane that is meant, or, beyond the ends of the caller's segment of `width` lanes, the caller itself.
inline unsigned in_segment(int wanted, int width) {
  const int own = int(lane()), first = own / width * width;
  return unsigned(wanted >= first && wanted < first + width ? wanted : own);
}

}  // namespace emulated

inline void __syncwarp(unsigned mask = 0xffffffffu, emulated::Place place = emulated::Place::here()) {
  emulated::wait_for_warp(mask, 0, emulated::lane(), "__syncwarp", place);
}
inline unsigned __ballot_sync(unsigned mask, int vote, emulated::Place place = emulated::Place::here()) {
  return emulated::wait_for_warp(mask, vote != 0, emulated::lane(), "__ballot_sync", place).votes;
}
inline int __any_sync(unsigned mask, int vote, emulated::Place place = emulated::Place::here()) {
  return emulated::wait_for_warp(mask, vote != 0, emulated::lane(), "__any_sync", place).votes != 0;
}
inline int __all_sync(unsigned mask, int vote, emulated::Place place = emulated::Place::here()) {
  return emulated::wait_for_warp(mask, vote == 0, emulated::lane(), "__all_sync", place).votes == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, emulated::Place place = emulated::Place::here()) {
  const unsigned first = emulated::lane() / unsigned(width) * unsigned(width);
  return emulated::shuffle(mask, value, first + unsigned(source) % unsigned(width), "__shfl_sync", place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, emulated::Place place = emulated::Place::here()) {
  // Earlier segments may be read, later ones may not.
  const unsigned own = emulated::lane(), end = own / unsigned(width) * unsigned(width) + unsigned(width);
  const unsigned source = (own ^ unsigned(bits)) < end ? own ^ unsigned(bits) : own;
  return emulated::shuffle(mask, value, source, "__shfl_xor_sync", place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   emulated::Place place = emulated::Place::here()) {
  const unsigned source = emulated::in_segment(int(emulated::lane() + by), width);
  return emulated::shuffle(mask, value, source, "__shfl_down_sync", place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, emulated::Place place = emulated::Place::here()) {
  const unsigned source = emulated::in_segment(int(emulated::lane()) - int(by), width);
  return emulated::shuffle(mask, value, source, "__shfl_up_sync", place);
}

// ---- memory ---------------------------------------------------------------------------------------------------------

inline unsigned atomicAdd(unsigned* address, unsigned value) {
  const unsigned old = *address;
  *address = old + value;
  return old;
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  const unsigned old = *address;
  *address = old >= limit ? 0 : old + 1;
  return old;
}

#define EMULATED_LOAD(name)  \
  template <class T>         \
  T name(const T* address) { \
    return *address;         \
  }
EMULATED_LOAD(__ldg)
EMULATED_LOAD(__ldcg)
EMULATED_LOAD(__ldcs)
#undef EMULATED_LOAD
template <class T>
void __stcs(T* address, const T& value) {
  *address = value;
}

// ---- the host's side ------------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoKernelImageForDevice = 209,
};

namespace emulated {
inline cudaError_t last_error = cudaSuccess;
inline cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
}  // namespace emulated

inline cudaError_t cudaGetLastError() { return std::exchange(emulated::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    default:
      return "invalid argument";
  }
}

using cudaStream_t = struct CUstream_st*;

struct cudaFuncAttributes {
  size_t sharedSizeBytes = 0, constSizeBytes = 0, localSizeBytes = 0;
  int maxThreadsPerBlock = 1024, numRegs = 32, ptxVersion = 90, binaryVersion = 90;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = {};
  return cudaSuccess;
}
template <class Symbol>
cudaError_t cudaGetSymbolAddress(void** address, const Symbol& symbol) {
  *address = const_cast<void*>(static_cast<const void*>(&symbol));
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// Few, so that small tensors already are more than one wave of blocks.
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxThreadsPerMultiProcessor = 39 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 3 : 2048;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... Expected, class... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Actual&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
  const bool few = grid.x < 1u << 31 && grid.y < 65536 && grid.z < 65536 && block.x * block.y * block.z <= 1024;
  if (!some || !few) return emulated::remember(cudaErrorInvalidConfiguration);
  std::tuple<void (*)(Expected...), std::tuple<Expected...>> call(kernel, {std::forward<Actual>(arguments)...});
  const auto body = [](void* data) {
    const auto& [function, parameters] = *static_cast<const decltype(call)*>(data);
    std::apply(function, parameters);
  };
  emulated::run(grid, block, reinterpret_cast<const void*>(kernel), body, &call);
  return cudaSuccess;
}
