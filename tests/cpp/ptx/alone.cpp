// The emulator's part for translations that run without it: threads one after another, which never meet.
#include <cstdlib>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim(32), gridDim;

namespace emulated {

unsigned char translated_shared[kSharedMemory];
void fail(const char*, Place) { std::abort(); }
uint64_t meet(Group, uint64_t value, unsigned, const char*, Place) { return value; }

}  // namespace emulated

extern "C" void run(void (*kernel)(void*), void* parameters, unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) threadIdx = i, kernel(parameters);
}
