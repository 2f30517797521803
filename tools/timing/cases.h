// What is measured: each kernel with its inputs, the bytes that it moves, and what it should have computed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/kernels.h"

namespace pyvae {
namespace timing {

// Throws in words where CUDA has failed.
inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Device memory of a case, freed with it.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  void* allocate(int64_t bytes);

  template <class T>
  T* numbers(int64_t count, T value) {  // [count], all of one value
    const std::vector<T> host(count, value);
    T* const device = static_cast<T*>(allocate(count * int64_t(sizeof(T))));
    require(cudaMemcpy(device, host.data(), count * sizeof(T), cudaMemcpyHostToDevice), "filling the GPU's memory");
    return device;
  }

 private:
  std::vector<void*> blocks_;
};

struct Problem {
  int64_t rows, features;
  int8_t type;  // of all tensors: float32 or bfloat16
};

// One launch with its own memory.
class Case {
 public:
  virtual ~Case() = default;
  virtual const char* launch(cudaStream_t stream) = 0;  // nullptr, or what is wrong
  // After one launch: the largest error of a result, in units of what is allowed.
  virtual double error() const = 0;

 protected:
  Memory memory_;
};

struct Kernel {
  const char* name;
  int tensors;  // of [rows, features], read or written: bytes an element are this many times the type's
  bool bfloat16;
  std::unique_ptr<Case> (*make)(const Problem&);
};

extern const std::vector<Kernel> kKernels;

int64_t size_of(int8_t type);
const char* name_of(int8_t type);

}  // namespace timing
}  // namespace pyvae
