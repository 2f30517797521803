// In the place of csrc/ops/cuda/runtime.cpp: no device, no stream; the CPU's memory and generators.
#include "ops/cuda/runtime.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/full.h>

#include <atomic>
#include <limits>

#include "cpu/kernels.h"

namespace pyvae {

// bindings.cpp asks for the CPU's kernels before anything else; none of them is in this build.
namespace cpu {
const InstructionSet* instruction_set() {
  static const InstructionSet kNone = {"emulated", {}, {}};
  return &kNone;
}
}  // namespace cpu

namespace cuda {

Call::Call(const char* function, const at::Tensor& tensor)
    : function_(function), guard_(tensor.device()), device_(0), stream_(nullptr) {}

// One ticket for each thread, as for each stream: the kernel before must have left it at 0. Sums that no block writes
// are NaN.
Workspace Call::workspace(int64_t blocks) {
  static std::atomic<unsigned> taken{0};
  thread_local unsigned* const ticket = tickets() + taken++ % kTickets;
  TORCH_CHECK(*ticket == 0, "a kernel has left its ticket at ", *ticket);
  partials_ = at::full({blocks}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  return {partials_.mutable_data_ptr<double>(), ticket};
}

Seed Call::seed(const at::Tensor& seed) const {
  Seed out;
  out.given = seed.const_data_ptr<int64_t>();  // as if on the device
  return out;
}

// From the generator's seed and, as offset, its next 64 bits. If one is given: by address, as in a captured graph.
Seed Call::draw(const std::optional<at::Generator>& generator, const at::Tensor& out) const {
  static uint64_t seed, offset;
  auto* const own = at::get_generator_or_default<at::CPUGeneratorImpl>(generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(own->mutex_);
  seed = own->current_seed(), offset = own->random64() / 8 * 4;
  Seed drawn;
  drawn.drawn = true;
  drawn.out = out.mutable_data_ptr<int64_t>();
  if (generator) {
    drawn.captured_seed = reinterpret_cast<const int64_t*>(&seed);
    drawn.captured_offset = reinterpret_cast<const int64_t*>(&offset);
    drawn.generator_offset = 4;
  } else {
    drawn.generator_seed = seed, drawn.generator_offset = offset;
  }
  return drawn;
}

void Call::check(const char* error) const { TORCH_CHECK(!error, "pyvae::", function_, ": ", error); }

bool is_runnable(int) { return has_image(); }

}  // namespace cuda
}  // namespace pyvae
