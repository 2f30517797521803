// What the functions that translate.py makes of PTX are made of: its registers' bits, its memory, and the operations
// that C++ has not. Threads meet as those of the emulator.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_runtime.h"

namespace ptx {

// The bits of one register as another's type; integers are cut, or extended by their sign if they have one.
template <class To, class From>
inline To as(From x) {
  if constexpr (std::is_integral_v<To> && std::is_integral_v<From>) {
    return To(x);
  } else {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    std::memcpy(&out, &x, sizeof(To));
    return out;
  }
}

// ---- memory ---------------------------------------------------------------------------------------------------------
//
// A global address is the host's. A shared one counts from the beginning of the block's memory.

inline uint64_t shared_memory(uint32_t at) { return reinterpret_cast<uint64_t>(emulated::translated_shared) + at; }

template <int kBytes>
inline char* aligned(uint64_t address, const emulated::Place& place) {
  if (address % kBytes) emulated::fail("a misaligned address", place);
  return reinterpret_cast<char*>(address);
}
template <class T>
inline T load(const char* at) {
  T x;
  std::memcpy(&x, at, sizeof(T));
  return x;
}
template <class T>
inline void store(char* at, T x) {
  std::memcpy(at, &x, sizeof(T));
}

// ---- what threads do together ---------------------------------------------------------------------------------------

// `clamp`: the last lane that a shuffle reads, or, up, the first.
inline void check_whole_warp(uint32_t clamp, uint32_t wanted, emulated::Place place) {
  if (clamp != wanted) emulated::fail("a shuffle in parts of a warp", place);
}
inline uint32_t shuffle_bfly(uint32_t value, uint32_t bits, uint32_t clamp, uint32_t mask, emulated::Place place) {
  check_whole_warp(clamp, 31, place);
  return __shfl_xor_sync(mask, value, int(bits), place);
}
inline uint32_t shuffle_up(uint32_t value, uint32_t by, uint32_t clamp, uint32_t mask, emulated::Place place) {
  check_whole_warp(clamp, 0, place);
  return __shfl_up_sync(mask, value, by, place);
}
inline uint32_t shuffle_idx(uint32_t value, uint32_t lane, uint32_t clamp, uint32_t mask, emulated::Place place) {
  check_whole_warp(clamp, 31, place);
  return __shfl_sync(mask, value, int(lane), place);
}
inline void sync_warp(uint32_t mask, emulated::Place place) {
  if (mask != 0xffffffffu) emulated::fail("whole warps only", place);
  __syncwarp(place);
}

// ---- operations -----------------------------------------------------------------------------------------------------

template <class T>
inline T shift_left(T x, uint32_t by) {
  return by < 8 * sizeof(T) ? T(x << by) : T(0);
}
template <class T>
inline T shift_right(T x, uint32_t by) {  // of a signed number the sign comes after
  return by < 8 * sizeof(T) ? T(x >> by) : x < T(0) ? T(-1) : T(0);
}

// The lowest `count` bits of x in place of those of y from `first` on.
inline uint32_t insert_bits(uint32_t x, uint32_t y, uint32_t first, uint32_t count) {
  const uint64_t mask = ((uint64_t(1) << std::min(count & 255, 32u)) - 1) << std::min(first & 255, 32u);
  return uint32_t((uint64_t(x) << std::min(first & 255, 32u) & mask) | (y & ~mask));
}
inline uint32_t reverse_bits(uint32_t x) {
  uint32_t out = 0;
  for (int i = 0; i < 32; ++i) out = out << 1 | (x >> i & 1);
  return out;
}

// Of a number and NaN the number; -0 is below 0.
template <class T>
inline T minimum(T a, T b) {
  if (a != a) return b;
  return b != b || a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
inline T maximum(T a, T b) {
  if (a != a) return b;
  return b != b || a > b || (a == b && !std::signbit(a)) ? a : b;
}

// What the hardware looks up in tables, here correctly rounded: nobody's result may rest on its last bits.
inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float rsqrt_approx(float x) { return flush(float(1 / std::sqrt(double(flush(x))))); }
inline float rcp_approx(float x) { return flush(float(1 / double(flush(x)))); }
inline float ex2_approx(float x) { return flush(float(std::exp2(double(flush(x))))); }
inline float lg2_approx(float x) { return float(std::log2(double(flush(x)))); }

inline float of_half(uint16_t bits) { return float(as<_Float16>(bits)); }
inline uint16_t to_half(float x) { return x != x ? 0x7fff : as<uint16_t>(_Float16(x)); }
inline uint16_t to_bfloat16(float x) {  // to the nearest, of two the even one
  const uint32_t bits = as<uint32_t>(x), rest = bits & 0xffff, half = 0x8000;
  if (x != x) return 0x7fff;
  return uint16_t((bits >> 16) + (rest > half || (rest == half && (bits >> 16 & 1))));
}

// ---- counting -------------------------------------------------------------------------------------------------------

struct Size {
  int instructions, doubles;  // those in float64 among them
};

// How often each thread has come to each of the kernel's blocks of instructions.
constexpr unsigned kMostBlocks = 8192, kMostThreads = 1024;
extern uint32_t visits[kMostBlocks][kMostThreads];

// Adds up a block of threads. A warp goes through a block of instructions as often as the thread that does so most
// often: where its threads part, they wait for each other.
void count_block(const char* kernel, const Size* sizes, unsigned count);

}  // namespace ptx

#define PTX_BLOCK(n) ++visits[n][threadIdx.x];
