#include "ops/cuda/runtime.h"

#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "math/philox.h"

namespace pyvae {
namespace cuda {

namespace {

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  C10_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

// The tickets of one device. A ticket is 0 again when its kernel ends. So launches may share a ticket if they never run
// at the same time: the launches of one stream, and the replays of one captured launch.
class Tickets {
 public:
  unsigned* take(cudaStream_t stream) {  // null: no ticket is left
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!first_) {
      // This may load the module, which a capture in its default mode does not allow.
      const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
      first_ = tickets();
      if (!first_) return nullptr;
    }
    if (is_capturing(stream)) return fresh();
    unsigned long long id = 0;  // unlike the handle, an id is never reused
    C10_CUDA_CHECK(cudaStreamGetId(stream, &id));
    const auto found = of_stream_.find(id);
    if (found != of_stream_.end()) return found->second;
    unsigned* const ticket = fresh();
    if (ticket) of_stream_[id] = ticket;
    return ticket;
  }

 private:
  unsigned* fresh() { return used_ < kTickets ? first_ + used_++ : nullptr; }

  std::mutex mutex_;
  unsigned* first_ = nullptr;  // [kTickets]
  int used_ = 0;
  std::unordered_map<unsigned long long, unsigned*> of_stream_;
};

Tickets& tickets_of(int device) {
  static std::vector<Tickets> all(size_t(c10::cuda::device_count()));
  return all.at(size_t(device));
}

}  // namespace

Call::Call(const char* function, const at::Tensor& tensor)
    : function_(function),
      guard_(tensor.device()),
      device_(tensor.device().index()),
      stream_(c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream()) {}

Workspace Call::workspace(int64_t blocks) {
  const auto options = at::TensorOptions().device(at::kCUDA, c10::DeviceIndex(device_));
  partials_ = at::empty({blocks}, options.dtype(at::kDouble));
  unsigned* ticket = tickets_of(device_).take(static_cast<cudaStream_t>(stream_));
  if (!ticket) {
    ticket_ = at::zeros({1}, options.dtype(at::kInt));
    ticket = reinterpret_cast<unsigned*>(ticket_.mutable_data_ptr<int>());
  }
  return {partials_.mutable_data_ptr<double>(), ticket};
}

Seed Call::seed(const at::Tensor& given) const {
  Seed seed;
  if (given.is_cpu()) {
    seed.value = uint64_t(*given.const_data_ptr<int64_t>());
  } else {
    seed.given = given.const_data_ptr<int64_t>();
  }
  return seed;
}

std::pair<Seed, at::Tensor> Call::draw(const std::optional<at::Generator>& generator) const {
  auto* const own = at::get_generator_or_default<at::CUDAGeneratorImpl>(
      generator, at::cuda::detail::getDefaultCUDAGenerator(c10::DeviceIndex(device_)));
  at::PhiloxCudaState state;
  {
    const std::lock_guard<std::mutex> lock(own->mutex_);
    state = own->philox_cuda_state(4);  // the words of one Philox call
  }
  Seed seed;
  if (!state.captured_) {
    seed.value = drawn_seed(state.seed_.val, state.offset_.val);
    at::Tensor kept = at::empty({1}, at::kLong);
    *kept.mutable_data_ptr<int64_t>() = int64_t(seed.value);
    return {seed, kept};
  }
  at::Tensor kept = at::empty({1}, at::TensorOptions(at::kLong).device(at::kCUDA, c10::DeviceIndex(device_)));
  seed.value = state.offset_intragraph_;
  seed.captured_seed = state.seed_.ptr;
  seed.captured_offset = state.offset_.ptr;
  seed.out = kept.mutable_data_ptr<int64_t>();
  return {seed, kept};
}

void Call::check(const char* error) const {
  if (!error) return;
  const bool no_image = std::string_view(error).find("no kernel image") != std::string_view::npos;
  TORCH_CHECK(false, "pyvae::", function_, ": CUDA could not launch the kernel: ", error,
              no_image ? ". Rebuild pyvae for this GPU: name its architecture in TORCH_CUDA_ARCH_LIST" : "");
}

bool is_runnable(int device) {
  static std::mutex mutex;
  static std::unordered_map<int, bool> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  const c10::cuda::CUDAGuard guard{c10::DeviceIndex(device)};
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  return known[device] = has_image();
}

}  // namespace cuda
}  // namespace pyvae
