// The part of CUDA that csrc/cuda uses, for the CPU: with this folder first on the include path, g++ compiles a .cu
// file, unmodified, as C++17, and its kernels run. For tests where there is no GPU.
//
// A launch returns when its kernel has ended, and says nothing about speed. See emulator.cpp for what runs when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

// ---- the language ---------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline  // forcing it makes g++ ten times slower
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
struct dim3 {  // grids and blocks of one dimension
  unsigned x = 1;
  constexpr dim3(unsigned x = 1) : x(x) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- what threads do together ---------------------------------------------------------------------------------------

namespace emulated {

constexpr unsigned kWarp = 32;

// Where in the kernel's source a thread is. As a default argument it is the caller's place.
struct Place {
  const char *function, *file;
  int line;
  static constexpr Place here(const char* function = __builtin_FUNCTION(), const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return {function, file, line};
  }
};

// Calls body(data) once for each thread of each block, before it returns. `kernel` is its address, for messages. When a
// block has ended, block_ended().
void run(dim3 grid, dim3 block, const void* kernel, void (*body)(void*), void* data, void (*block_ended)() = nullptr);

// What runs in a kernel's place: its own PTX, made C++ by tests/cpp/ptx. Null if there is none.
struct Translation {
  void (*body)(void* parameters);
  void (*block_ended)();
};
const Translation* translation_of(const void* kernel);
constexpr size_t kSharedMemory = 48 << 10;  // what a kernel has if it does not ask for more
extern unsigned char translated_shared[kSharedMemory];

// Waits until all threads of the block, or of the warp, have come to this place; gives the value that thread `source`
// of them has brought.
enum class Group { kBlock, kWarp };
uint64_t meet(Group group, uint64_t value, unsigned source, const char* operation, Place place);

// Says what is wrong and where, and aborts: a kernel's mistake must not pass for a wrong number.
[[noreturn]] void fail(const char* what, Place place);

}  // namespace emulated

inline void __syncthreads(emulated::Place place = emulated::Place::here()) {
  emulated::meet(emulated::Group::kBlock, 0, 0, "__syncthreads", place);
}

inline void __syncwarp(emulated::Place place = emulated::Place::here()) {
  emulated::meet(emulated::Group::kWarp, 0, 0, "__syncwarp", place);
}

namespace emulated {

// The value that thread `source` of the warp has brought.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, const char* operation, Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words of 4 and 8 bytes");
  if (mask != 0xffffffffu) fail("whole warps only", place);
  if (source >= kWarp) fail("no such lane", place);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = meet(Group::kWarp, word, source, operation, place);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}
inline unsigned lane() { return threadIdx.x % kWarp; }

}  // namespace emulated

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, emulated::Place place = emulated::Place::here()) {
  return emulated::shuffle(mask, value, emulated::lane() ^ unsigned(bits), "__shfl_xor_sync", place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, emulated::Place place = emulated::Place::here()) {
  const unsigned lane = emulated::lane();
  return emulated::shuffle(mask, value, lane < by ? lane : lane - by, "__shfl_up_sync", place);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, emulated::Place place = emulated::Place::here()) {
  return emulated::shuffle(mask, value, unsigned(source), "__shfl_sync", place);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline void __threadfence() {}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return std::exchange(*address, *address >= limit ? 0 : *address + 1);
}

// ---- the host's side ------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct CUstream_st*;

inline cudaError_t emulated_error = cudaSuccess;  // the last one
inline cudaError_t cudaGetLastError() { return std::exchange(emulated_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeRelaxed = 2 };
inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }

struct cudaFuncAttributes {};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  return cudaSuccess;
}
template <class Symbol>
cudaError_t cudaGetSymbolAddress(void** address, Symbol& symbol) {
  *address = &symbol;
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream = nullptr;
};

template <class... Expected, class... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Actual&&... arguments) {
  const unsigned grid = config->gridDim.x, block = config->blockDim.x;
  const bool whole_warps = block && block <= 1024 && block % emulated::kWarp == 0;  // CUDA takes parts of one, too
  if (!grid || grid >= 1u << 31 || !whole_warps) return emulated_error = cudaErrorInvalidConfiguration;
  std::tuple<void (*)(Expected...), std::tuple<Expected...>> call(kernel, {std::forward<Actual>(arguments)...});
  const auto body = [](void* data) {
    const auto& [function, parameters] = *static_cast<const decltype(call)*>(data);
    std::apply(function, parameters);
  };
  const void* const address = reinterpret_cast<const void*>(kernel);
  if constexpr (sizeof...(Expected) == 1) {  // a translation takes the address of the only parameter
    if (const emulated::Translation* translation = emulated::translation_of(address)) {
      emulated::run(grid, block, address, translation->body, &std::get<0>(std::get<1>(call)), translation->block_ended);
      return cudaSuccess;
    }
  }
  emulated::run(grid, block, address, body, &call);
  return cudaSuccess;
}
