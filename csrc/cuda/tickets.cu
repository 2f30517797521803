// Zeroed numbers in every device's memory, which come with the module: nothing is allocated or cleared for them.
#include <cuda_runtime.h>

#include "cuda/kernels.h"

namespace pyvae {
namespace cuda {
namespace {

__device__ unsigned zeros[kTickets];

}  // namespace

unsigned* tickets() {
  void* address = nullptr;
  if (cudaGetSymbolAddress(&address, zeros) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return static_cast<unsigned*>(address);
}

}  // namespace cuda
}  // namespace pyvae
