// In the place of csrc/ops/cuda/runtime.cpp: no device, no stream; the CPU's memory and generators.
#include "ops/cuda/runtime.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <atomic>
#include <limits>

#include "cpu/kernels.h"
#include "math/philox.h"

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

Seed Call::seed(const at::Tensor& given) const {
  Seed seed;
  seed.given = given.const_data_ptr<int64_t>();  // as if on the device
  return seed;
}

// From the generator's seed and, as offset, its next 64 bits. If one is given: by address, as in a captured graph.
std::pair<Seed, at::Tensor> Call::draw(const std::optional<at::Generator>& generator) const {
  static uint64_t captured_seed, captured_offset;
  auto* const own = at::get_generator_or_default<at::CPUGeneratorImpl>(generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(own->mutex_);
  captured_seed = own->current_seed(), captured_offset = own->random64() / 8 * 4;
  at::Tensor kept = at::empty({1}, at::kLong);
  Seed seed;
  if (generator) {
    seed.captured_seed = reinterpret_cast<const int64_t*>(&captured_seed);
    seed.captured_offset = reinterpret_cast<const int64_t*>(&captured_offset);
    seed.value = 4;
    seed.out = kept.mutable_data_ptr<int64_t>();
  } else {
    seed.value = drawn_seed(captured_seed, captured_offset);
    *kept.mutable_data_ptr<int64_t>() = int64_t(seed.value);
  }
  return {seed, kept};
}

void Call::check(const char* error) const { TORCH_CHECK(!error, "pyvae::", function_, ": ", error); }

bool is_runnable(int) { return has_image(); }

}  // namespace cuda
}  // namespace pyvae
