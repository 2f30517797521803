// What runs the blocks and threads of a kernel on the CPU: the interface between cuda_runtime.h and emulator.cpp.
#pragma once

#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulated {

// Where in the kernel's source a thread is. As a default argument it is the caller's place.
struct Place {
  const char *function, *file;
  int line;
  static constexpr Place here(const char* function = __builtin_FUNCTION(), const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return {function, file, line};
  }
};

// Calls body(data) once for each thread of each block, before it returns. `kernel` is its address, for messages.
void run(dim3 grid, dim3 block, const void* kernel, void (*body)(void*), void* data);

// Waits for all threads of the block, and tells for how many of them `vote` is true.
unsigned wait_for_block(bool vote, const char* operation, Place place);

// Waits for the lanes of `mask`, which must all come to this place with this mask; gives the value of lane `source`.
struct Exchanged {
  uint64_t value;
  unsigned votes;  // the lanes whose value is not 0
};
Exchanged wait_for_warp(unsigned mask, uint64_t value, unsigned source, const char* operation, Place place);

unsigned lane();  // of the running thread in its warp

// Says what is wrong and where, and aborts: a kernel's mistake must not pass for a wrong number.
[[noreturn]] void fail(const char* what, Place place);

}  // namespace emulated
