// Counts what translated kernels execute.
#include "machine.h"

#include <cstdlib>
#include <map>
#include <string>

namespace ptx {

uint32_t visits[kMostBlocks][kMostThreads];

namespace {

struct Count {
  double instructions = 0, doubles = 0;  // of all warps together
};
std::map<std::string, Count> counts;

}  // namespace

void count_block(const char* kernel, const Size* sizes, unsigned count) {
  if (count > kMostBlocks) std::abort();
  Count& total = counts[kernel];
  for (unsigned block = 0; block < count; ++block) {
    for (unsigned warp = 0; warp < blockDim.x; warp += emulated::kWarp) {
      uint32_t* const own = &visits[block][warp];
      const uint32_t most = *std::max_element(own, own + emulated::kWarp);
      total.instructions += double(most) * sizes[block].instructions;
      total.doubles += double(most) * sizes[block].doubles;
      std::fill(own, own + emulated::kWarp, 0);
    }
  }
}

// A line for each kernel that has run since the last call: its name, instructions and those of them in float64.
extern "C" const char* ptx_counts() {
  static std::string text;
  text.clear();
  for (const auto& [kernel, count] : counts) {
    text += kernel + " " + std::to_string(count.instructions) + " " + std::to_string(count.doubles) + "\n";
  }
  counts.clear();
  return text.c_str();
}

}  // namespace ptx
