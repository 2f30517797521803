#include "cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "math/exact.h"
#include "math/normal.h"
#include "math/stored.h"
#include "measured.h"

namespace pyvae {
namespace timing {
namespace {

constexpr uint64_t kSeed = 1234;

// ---- tensors --------------------------------------------------------------------------------------------------------

Shape shape_of(const Problem& p) {
  Shape shape{};
  shape.rows = p.rows, shape.features = p.features, shape.dims = 1, shape.sizes[0] = p.rows * p.features;
  return shape;
}

template <class Function>
auto with_type(int8_t type, const Function& function) {
  return type == kTypeCode<float> ? function(Tag<float>()) : function(Tag<BFloat16>());
}

Operand tensor(Memory& memory, const Problem& p) {  // [rows, features]
  Operand out;
  out.data = memory.allocate(p.rows * p.features * size_of(p.type));
  out.type = p.type, out.contiguous = true, out.strides[0] = 1;
  return out;
}

// Of evenly distributed numbers; from some millions on they repeat.
Operand tensor(Memory& memory, const Problem& p, float low, float high) {
  constexpr int64_t kPeriod = 4194301;  // prime: no two tensors and no rows are in step
  const int64_t count = p.rows * p.features, drawn = std::min(count, kPeriod);
  const Operand out = tensor(memory, p);
  static uint32_t state = 1;
  with_type(p.type, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    std::vector<Stored> host(drawn);
    for (Stored& x : host) {
      state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
      x = narrow<Stored>(low + (high - low) * (float(state >> 8) * 0x1p-24f));
    }
    Stored* const data = static_cast<Stored*>(out.data);
    require(cudaMemcpy(data, host.data(), drawn * sizeof(Stored), cudaMemcpyHostToDevice), "filling the GPU's memory");
    for (int64_t done = drawn; done < count; done += drawn) {
      const int64_t bytes = std::min(drawn, count - done) * int64_t(sizeof(Stored));
      require(cudaMemcpy(data + done, data, bytes, cudaMemcpyDeviceToDevice), "filling the GPU's memory");
    }
  });
  return out;
}

std::vector<double> download(const Problem& p, const Operand& operand) {  // [rows * features]
  const int64_t count = p.rows * p.features;
  return with_type(p.type, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    std::vector<Stored> host(count);
    require(cudaMemcpy(host.data(), operand.data, count * sizeof(Stored), cudaMemcpyDeviceToHost), "reading a result");
    std::vector<double> out(count);
    for (int64_t i = 0; i < count; ++i) out[i] = widen<double>(host[i]);
    return out;
  });
}

cuda::Result result(Memory& memory, int64_t count) { return {memory.numbers(count, NAN), /*in_double=*/false}; }

std::vector<double> download(const cuda::Result& result, int64_t count) {  // [count]
  std::vector<float> host(count);
  require(cudaMemcpy(host.data(), result.data, count * sizeof(float), cudaMemcpyDeviceToHost), "reading a result");
  return {host.begin(), host.end()};
}

cuda::Workspace workspace(Memory& memory, int64_t blocks) {
  return {memory.numbers(blocks, 0.0), memory.numbers(1, 0u)};
}

// A number or a sum may be off by 1e-4 of itself, and what is stored in bfloat16 by the last of its 8 bits.
constexpr double kAllowed = 1e-4;
double allowed(const Problem& p) { return p.type == kTypeCode<float> ? kAllowed : 0x1p-8; }

double largest_error(const std::vector<double>& got, const std::vector<double>& want, double allowed) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got[i] - want[i]) / (allowed * (std::abs(want[i]) + 1e-2));
    if (!(error <= worst)) worst = error;  // NaN stays: the next comparison with it is false, too
    if (std::isnan(worst)) break;
  }
  return worst;
}

// ---- decoder side ---------------------------------------------------------------------------------------------------

template <class Likelihood>
cuda::Objective inputs_of(Memory& memory, const Problem& p) {
  cuda::Objective call{};
  call.shape = shape_of(p);
  const float reach = Likelihood::kProbability ? 0.49f : 4.0f, middle = Likelihood::kProbability ? 0.5f : 0.0f;
  call.recon = tensor(memory, p, middle - reach, middle + reach);
  call.target = tensor(memory, p, 0, 1);
  call.gradient = tensor(memory, p);
  call.likelihood = kCode<Likelihood, cuda::Likelihoods>;
  call.partition = cuda::Partition(1, p.rows * p.features);
  return call;
}

// The sum of the values, and the derivatives.
template <class Likelihood>
double expect(const Problem& p, const cuda::Objective& call, std::vector<double>& derivatives) {
  const std::vector<double> recon = download(p, call.recon), target = download(p, call.target);
  double sum = 0;
  derivatives.resize(recon.size());
  const double none[1] = {};
  for (size_t i = 0; i < recon.size(); ++i) {
    const auto term = Likelihood::template evaluate<Exact>(recon[i], target[i], none);
    sum += term.value, derivatives[i] = term.derivative;
  }
  return sum;
}

// elbo_loss(recon, x, likelihood=..., reduction="sum"), gradient included.
template <class Likelihood>
class ObjectiveForward : public Case {
 public:
  explicit ObjectiveForward(const Problem& p) : p_(p), call_(inputs_of<Likelihood>(memory_, p)) {
    call_.loss = result(memory_, 1);
    call_.workspace = workspace(memory_, call_.partition.blocks);
  }
  const char* launch(cudaStream_t stream) override { return cuda::launch(call_, stream); }
  double error() const override {
    std::vector<double> derivatives;
    const double sum = expect<Likelihood>(p_, call_, derivatives);
    return std::max(largest_error(download(p_, call_.gradient), derivatives, allowed(p_)),
                    largest_error(download(call_.loss, 1), {sum}, kAllowed));
  }

 private:
  Problem p_;
  cuda::Objective call_;
};

// Its backward: the upstream gradient is 1 and the gradient stays as it is; or it is -1, which multiplies what is there
// without ever growing; or the gradient is computed anew, which is also how 16 bits are multiplied.
enum class Backward { kNothing, kRescale, kAnew };

template <Backward kWay>
class ObjectiveBackward : public Case {
 public:
  explicit ObjectiveBackward(const Problem& p) : p_(p) {
    call_.objective = inputs_of<BernoulliLogits>(memory_, p);
    if (kWay != Backward::kAnew) call_.objective.gradient = tensor(memory_, p, -1, 1);
    before_ = kWay == Backward::kAnew || p.rows * p.features > kChecked ? std::vector<double>()
                                                                        : download(p, call_.objective.gradient);
    call_.rescale = kWay != Backward::kAnew && p.type == kTypeCode<float>;
    call_.done_if_one = kWay != Backward::kAnew;
    call_.grad_loss.data = memory_.numbers(1, kUpstream);
  }
  const char* launch(cudaStream_t stream) override { return cuda::launch(call_, stream); }
  double error() const override {
    std::vector<double> want = before_;
    if (kWay == Backward::kAnew) expect<BernoulliLogits>(p_, call_.objective, want);
    for (double& x : want) x *= kUpstream;
    return largest_error(download(p_, call_.objective.gradient), want, allowed(p_));
  }

 private:
  static constexpr float kUpstream = kWay == Backward::kNothing ? 1 : -1;
  static constexpr int64_t kChecked = 1 << 20;  // elements: larger ones are only timed
  Problem p_;
  cuda::ObjectiveBackward call_{};
  std::vector<double> before_;
};

// ---- encoder side ---------------------------------------------------------------------------------------------------

template <class Call>
Call posterior_of(Memory& memory, const Problem& p) {
  Call call{};
  call.shape = shape_of(p);
  call.mu = tensor(memory, p, -2, 2);
  call.scale = tensor(memory, p, -3, 1);
  call.scale_kind = kCode<LogVariance, cuda::Scales>;
  call.seed.given = memory.numbers(1, int64_t(kSeed));
  return call;
}

double noise(int64_t index) {
  const Words<uint64_t> words = philox(kSeed, uint64_t(index / 4));
  float normals[4];
  normals_of(Words<uint32_t>{uint32_t(words.w0), uint32_t(words.w1), uint32_t(words.w2), uint32_t(words.w3)}, normals);
  return normals[index % 4];
}

// reparameterize_kl(mu, logvar, seed=...)
class SamplerForward : public Case {
 public:
  explicit SamplerForward(const Problem& p) : p_(p), call_(posterior_of<cuda::LatentForward>(memory_, p)) {
    call_.z = tensor(memory_, p);
    call_.partition = cuda::Partition(p.rows, p.features);
    call_.kl = result(memory_, p.rows);
    call_.workspace = workspace(memory_, call_.partition.blocks);
  }
  const char* launch(cudaStream_t stream) override { return cuda::launch(call_, stream); }
  double error() const override {
    const std::vector<double> mu = download(p_, call_.mu), logvar = download(p_, call_.scale);
    std::vector<double> z(mu.size()), kl(p_.rows);
    for (size_t i = 0; i < mu.size(); ++i) {
      z[i] = Posterior<LogVariance>::sample<true>(mu[i], LogVariance::sigma(logvar[i]), noise(int64_t(i)));
      kl[i / size_t(p_.features)] += Posterior<LogVariance>::divergence(mu[i], logvar[i]);
    }
    return std::max(largest_error(download(p_, call_.z), z, allowed(p_)),
                    largest_error(download(call_.kl, p_.rows), kl, kAllowed));
  }

 private:
  Problem p_;
  cuda::LatentForward call_;
};

// Its backward, with gradients by z and by the KL of every row.
class SamplerBackward : public Case {
 public:
  explicit SamplerBackward(const Problem& p) : p_(p), call_(posterior_of<cuda::LatentBackward>(memory_, p)) {
    call_.grad_z = tensor(memory_, p, -1, 1);
    call_.grad_mu = tensor(memory_, p), call_.grad_scale = tensor(memory_, p);
    call_.grad_kl.data = memory_.numbers(p.rows, kGradKl);
    call_.grad_kl.stride = 1;
    call_.partition = cuda::Partition(1, p.rows * p.features);
  }
  const char* launch(cudaStream_t stream) override { return cuda::launch(call_, stream); }
  double error() const override {
    const std::vector<double> mu = download(p_, call_.mu), logvar = download(p_, call_.scale);
    const std::vector<double> grad_z = download(p_, call_.grad_z);
    std::vector<double> grad_mu(mu.size()), grad_logvar(mu.size());
    for (size_t i = 0; i < mu.size(); ++i) {
      const auto sample = Posterior<LogVariance>::sample_gradient(logvar[i], noise(int64_t(i)), grad_z[i]);
      const auto both = Posterior<LogVariance>::divergence_gradient(mu[i], logvar[i], double(kGradKl), sample);
      grad_mu[i] = both.mu, grad_logvar[i] = both.scale;
    }
    return std::max(largest_error(download(p_, call_.grad_mu), grad_mu, allowed(p_)),
                    largest_error(download(p_, call_.grad_scale), grad_logvar, allowed(p_)));
  }

 private:
  static constexpr float kGradKl = 0.5f;
  Problem p_;
  cuda::LatentBackward call_;
};

template <class AnyCase>
std::unique_ptr<Case> make(const Problem& p) {
  return std::make_unique<AnyCase>(p);
}

}  // namespace

Memory::~Memory() {
  for (void* block : blocks_) cudaFree(block);
}

void* Memory::allocate(int64_t bytes) {
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, size_t(bytes));
  require(status, ("allocating " + std::to_string(bytes) + " bytes on the GPU").c_str());
  blocks_.push_back(block);
  return block;
}

const std::vector<Kernel> kKernels = {
    // recon, target; gradient: 12 bytes an element in float32, 6 in bfloat16
    {"objective_bernoulli_logits", 3, true, make<ObjectiveForward<BernoulliLogits>>},
    {"objective_bernoulli", 3, true, make<ObjectiveForward<Bernoulli>>},
    {"objective_gaussian", 3, true, make<ObjectiveForward<Gaussian>>},
    // mu, logvar; z: 12 and 6
    {"sampler_forward", 3, true, make<SamplerForward>},
    // mu, logvar, grad_z; grad_mu, grad_logvar: 20 and 10
    {"sampler_backward", 5, true, make<SamplerBackward>},
    // nothing: 0
    {"backward_nothing", 0, true, make<ObjectiveBackward<Backward::kNothing>>},
    // gradient; gradient: 8
    {"backward_rescale", 2, false, make<ObjectiveBackward<Backward::kRescale>>},
    // recon, target; gradient: 12 and 6
    {"backward_anew", 3, true, make<ObjectiveBackward<Backward::kAnew>>},
};

int64_t size_of(int8_t type) {
  return with_type(type, [](auto tag) { return int64_t(sizeof(typename decltype(tag)::type)); });
}

const char* name_of(int8_t type) { return type == kTypeCode<float> ? "float32" : "bfloat16"; }

}  // namespace timing
}  // namespace pyvae
