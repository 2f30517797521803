#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

namespace pyvae {
namespace timing {
namespace {

constexpr int kWarmUp = 5;
// A sample lasts about as long, so that the clock's half microsecond does not count; and fits the launch queue.
constexpr double kSampleMicroseconds = 300;
constexpr int kMostLaunches = 64;
// Bytes that launches go through before they come back to the same memory, in sizes of the L2 cache.
constexpr int64_t kCaches = 4;

// ---- the device's clock ---------------------------------------------------------------------------------------------

class Event {
 public:
  Event() { require(cudaEventCreate(&event_), "creating an event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record(cudaStream_t stream) { require(cudaEventRecord(event_, stream), "recording an event"); }
  void wait() { require(cudaEventSynchronize(event_), "waiting for the kernels"); }
  double since(const Event& start) const {  // in microseconds
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, start.event_, event_), "reading the clock");
    return 1e3 * milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Holds a stream until all that is to be timed is in its queue: the GPU then never waits for the host. Not for longer
// than a second, in case that a launch waits for the stream (CUDA_LAUNCH_BLOCKING).
class Gate {
 public:
  explicit Gate(cudaStream_t stream) : stream_(stream) {
    require(cudaLaunchHostFunc(stream, wait, &open_), "holding the stream");
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() {  // an exception's way out, too: nobody looks at `open_` any more
    open();
    cudaStreamSynchronize(stream_);
  }
  void open() { open_ = true; }

 private:
  static void CUDART_CB wait(void* open) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (!*static_cast<std::atomic<bool>*>(open) && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  }
  cudaStream_t stream_;
  std::atomic<bool> open_{false};
};

// ---- one measurement ------------------------------------------------------------------------------------------------

// What the launch queue makes of a case: its kernel's grid, registers, and blocks that an SM holds at once.
struct Launched {
  unsigned blocks = 0;
  int registers = 0, blocks_per_sm = 0;
};

// From a graph of the launch, which needs no name of the kernel.
Launched inspect(Case& one) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphNode_t node = nullptr;
  size_t count = 1;
  cudaKernelNodeParams params{};
  cudaFuncAttributes attributes{};
  Launched out;
  require(cudaStreamCreate(&stream), "creating a stream");
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capturing a launch");
  const char* const error = one.launch(stream);
  require(cudaStreamEndCapture(stream, &graph), "capturing a launch");
  if (error) throw std::runtime_error(error);
  require(cudaGraphGetNodes(graph, &node, &count), "reading a captured launch");
  require(cudaGraphKernelNodeGetParams(node, &params), "reading a captured launch");
  require(cudaFuncGetAttributes(&attributes, params.func), "reading a kernel's registers");
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&out.blocks_per_sm, params.func, int(params.blockDim.x),
                                                        params.sharedMemBytes),
          "asking for a kernel's occupancy");
  out.blocks = params.gridDim.x, out.registers = attributes.numRegs;
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return out;
}

double quantile(std::vector<double> values, double q) {  // by linear interpolation
  std::sort(values.begin(), values.end());
  const double at = q * double(values.size() - 1);
  const size_t below = size_t(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - double(below)) * (values[above] - values[below]);
}

}  // namespace

void measure(const Kernel& kernel, const Problem& p, int samples, int64_t cache) {
  const int64_t bytes = kernel.tensors * p.rows * p.features * size_of(p.type);
  // As many sets of tensors as exceed the L2 cache; where nothing is moved, one will do. Each has memory of its own to
  // copy: half of the bytes is read, the other half written.
  const int64_t sets = bytes > 0 ? std::max<int64_t>(1, (kCaches * cache + bytes - 1) / bytes) : 1;
  std::vector<std::unique_ptr<Case>> cases;
  std::vector<char*> buffers;  // [sets], of `bytes` each
  Memory memory;
  for (int64_t i = 0; i < sets; ++i) {
    cases.push_back(kernel.make(p));
    if (bytes == 0) continue;
    buffers.push_back(static_cast<char*>(memory.allocate(bytes)));
    require(cudaMemset(buffers.back(), 0, size_t(bytes)), "clearing memory");
  }
  Launched launched;
  try {
    launched = inspect(*cases[0]);
  } catch (const std::runtime_error& error) {  // the times are worth having without it
    std::printf("# %s: %s\n", kernel.name, error.what());
  }

  size_t next_case = 0, next_buffer = 0;
  const cudaStream_t stream = nullptr;  // the default one
  const auto run = [&] {
    if (const char* error = cases[next_case++ % cases.size()]->launch(stream)) throw std::runtime_error(error);
  };
  const auto copy = [&] {
    char* const from = buffers[next_buffer++ % buffers.size()];
    const size_t half = size_t(bytes / 2);
    require(cudaMemcpyAsync(from + half, from, half, cudaMemcpyDeviceToDevice, stream), "copying");
  };
  // One sample: microseconds of a copy and of a kernel, each of `launches` in a row.
  Event start, between, end;
  const auto sample = [&](int launches) {
    Gate gate(stream);
    start.record(stream);
    for (int i = 0; bytes > 0 && i < launches; ++i) copy();
    between.record(stream);
    for (int i = 0; i < launches; ++i) run();
    end.record(stream);
    gate.open();
    end.wait();
    return std::make_pair(between.since(start) / launches, end.since(between) / launches);
  };
  for (int i = 0; i < kWarmUp; ++i) {
    run();
    if (bytes > 0) copy();
  }
  require(cudaDeviceSynchronize(), "warming up");
  const double estimate = std::max(0.5, sample(kWarmUp).second);
  const int launches = std::clamp(int(kSampleMicroseconds / estimate), 1, kMostLaunches);

  std::vector<double> copies, kernels, shares;
  for (int i = 0; i < samples; ++i) {
    const auto [of_copy, of_kernel] = sample(launches);
    copies.push_back(of_copy), kernels.push_back(of_kernel), shares.push_back(of_copy / of_kernel);
  }
  const double median = quantile(kernels, 0.5), of_copy = quantile(copies, 0.5);
  std::printf("%s,%s,%lld,%lld,%lld,%d,%d,%.3f,%.3f,%.3f,", kernel.name, name_of(p.type), (long long)p.rows,
              (long long)p.features, (long long)bytes, samples, launches, quantile(kernels, 0.2), median,
              quantile(kernels, 0.8));
  if (bytes > 0) {
    std::printf("%.1f,%.3f,%.1f,%.4f,", 1e-3 * double(bytes) / median, of_copy, 1e-3 * double(bytes) / of_copy,
                quantile(shares, 0.5));
  } else {
    std::printf(",,,,");
  }
  std::printf("%u,%d,%d\n", launched.blocks, launched.registers, launched.blocks_per_sm);
  std::fflush(stdout);
}

}  // namespace timing
}  // namespace pyvae
