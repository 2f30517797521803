// Times the CUDA kernels, without torch, beside device-to-device copies of as many bytes: tools/timing.py builds and
// runs this program. Lines that begin with # are remarks; the others are CSV, written as they come.
//
//   timing [--sizes 2048x65536,128x784] [--kernels sampler_forward] [--types float32] [--samples 40]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "math/stored.h"
#include "measure.h"

namespace pyvae {
namespace timing {
namespace {

// Long rows and short ones, whose vectors and rows have ends of every kind; throws where a result is wrong.
void check(const Kernel& kernel, int8_t type) {
  for (const auto& [rows, features] : {std::make_pair(24, 4104), std::make_pair(96, 200)}) {
    const Problem p{rows, features, type};
    const std::unique_ptr<Case> one = kernel.make(p);
    if (const char* error = one->launch(nullptr)) throw std::runtime_error(error);
    require(cudaDeviceSynchronize(), kernel.name);
    const double error = one->error();
    if (error <= 1) continue;
    std::ostringstream text;
    text << kernel.name << " in " << name_of(type) << " is wrong at " << rows << 'x' << features << ": off by " << error
         << " times what is allowed";
    throw std::runtime_error(text.str());
  }
}

// ---- the program ----------------------------------------------------------------------------------------------------

// The GPU in one line; returns the bytes of its L2 cache.
int64_t describe() {
  int count = 0, driver = 0, runtime = 0, clock = 0, memory_clock = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    throw std::runtime_error(std::string("no CUDA device to time kernels on: ") +
                             (count == 0 && status == cudaSuccess ? "none is visible" : cudaGetErrorString(status)));
  }
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0), "asking for the GPU's properties");
  require(cudaDriverGetVersion(&driver), "asking for the driver's version");
  require(cudaRuntimeGetVersion(&runtime), "asking for the runtime's version");
  require(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0), "asking for the GPU's clock");
  require(cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, 0), "asking for the memory's clock");
  std::printf("# %s, sm_%d%d, %d SMs, at most %d MHz, memory %d MHz, L2 %.0f MiB, CUDA %d.%d, driver's %d.%d\n",
              properties.name, properties.major, properties.minor, properties.multiProcessorCount, clock / 1000,
              memory_clock / 1000, double(properties.l2CacheSize) / (1 << 20), runtime / 1000, runtime % 1000 / 10,
              driver / 1000, driver % 1000 / 10);
  std::printf("# tuning: %d elements a thread, %d and %d blocks an SM, parts of %lld to %lld, at most %lld\n",
              cuda::kPackedVector<float>, cuda::kPackedBlocks<float>, cuda::kGradientBlocks,
              (long long)cuda::kSmallPart, (long long)cuda::kLargePart, (long long)cuda::kMostParts);
  std::fflush(stdout);
  return properties.l2CacheSize;
}

struct Options {
  std::vector<std::string> sizes = {"2048x65536", "64x196608", "4096x4096", "128x784"};
  std::vector<std::string> kernels, types = {"float32", "bfloat16"};
  int samples = 40;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) out.push_back(word);
  return out;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

Problem parse_size(const std::string& text) {
  long long rows = 0, features = 0;
  char end = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%c", &rows, &features, &end) != 2 || rows < 1 || features < 8 ||
      features % 8 != 0) {
    throw std::runtime_error("--sizes: expected rows x features, the latter a multiple of 8, as in 2048x65536, got '" +
                             text + "'");
  }
  return {rows, features, 0};
}

Options parse(int count, char** words) {
  Options out;
  std::vector<std::string> names;
  for (const Kernel& kernel : kKernels) names.push_back(kernel.name);
  out.kernels = names;
  const auto all_of = [](const char* option, const std::string& text, const std::vector<std::string>& known) {
    const std::vector<std::string> asked = split(text);
    for (const std::string& word : asked) {
      if (contains(known, word)) continue;
      std::string list;
      for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
      throw std::runtime_error(std::string(option) + ": expected any of " + list + ", got '" + word + "'");
    }
    return asked;
  };
  for (int i = 1; i < count; i += 2) {
    const std::string option = words[i], value = i + 1 < count ? words[i + 1] : "";
    if (option == "--sizes") {
      out.sizes = split(value);
    } else if (option == "--kernels") {
      out.kernels = all_of("--kernels", value, names);
    } else if (option == "--types") {
      out.types = all_of("--types", value, Options().types);
    } else if (option == "--samples" && std::atoi(value.c_str()) > 0) {
      out.samples = std::atoi(value.c_str());
    } else {
      throw std::runtime_error("expected --sizes, --kernels, --types or --samples and a value, got '" + option + " " +
                               value + "'");
    }
  }
  for (const std::string& size : out.sizes) parse_size(size);
  return out;
}

void run(int count, char** words) {
  const Options options = parse(count, words);
  const int64_t cache = describe();
  std::printf("%s\n", kColumns);
  std::fflush(stdout);
  const auto each = [&options](const auto& function) {
    for (const Kernel& kernel : kKernels) {
      for (const int8_t type : {kTypeCode<float>, kTypeCode<BFloat16>}) {
        if (type == kTypeCode<BFloat16> && !kernel.bfloat16) continue;
        if (contains(options.kernels, kernel.name) && contains(options.types, name_of(type))) function(kernel, type);
      }
    }
  };
  each(check);  // before anything is timed
  for (const std::string& size : options.sizes) {
    each([&](const Kernel& kernel, int8_t type) {
      Problem p = parse_size(size);
      p.type = type;
      measure(kernel, p, options.samples, cache);
    });
  }
}

}  // namespace
}  // namespace timing
}  // namespace pyvae

int main(int count, char** words) {
  try {
    pyvae::timing::run(count, words);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "timing: %s\n", error.what());
    return 1;
  }
}
