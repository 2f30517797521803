// The log density on the CPU: allocate and run.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/cpu/tensors.h"
#include "ops/dtypes.h"
#include "ops/layout.h"
#include "ops/mixture/implement.h"

namespace pyvae {
namespace cpu {

namespace {

// The kernels' operands, in the type that is computed in and contiguous. What was not so is a copy, no larger than it.
struct Operands {
  at::ScalarType type;
  Tensor z, mean, scale;
  Tensor log_weight;  // [groups, K], undefined: equal
  Mixture call{};

  Operands(const MixtureArguments& a, bool elements)
      : type(density_type(a)), z(made(a.z)), mean(made(a.mean)), scale(made(a.scale)) {
    call.groups = a.mean.dim() == 3 ? a.mean.size(0) : 1;
    call.components = a.mean.size(-2), call.features = a.mean.size(-1);
    call.rows = 1;
    for (int64_t d = 0; d < a.z.dim() - 1; ++d) call.rows *= a.z.size(d);
    call.in_double = type == at::kDouble;
    call.elements = elements;
    call.scale_kind = int(a.scale_kind);
    std::tie(call.low, call.high) = bounds_of(a.low, a.high);
    call.z = z.const_data_ptr(), call.mean = mean.const_data_ptr(), call.scale = scale.const_data_ptr();
    if (!a.logits) return;
    log_weight = at::log_softmax(a.logits->to(at::kDouble), -1).contiguous();
    call.log_weight = log_weight.const_data_ptr<double>();
  }

  Tensor made(const Tensor& tensor) const { return tensor.to(type).contiguous(); }
  // top and sum: [2, ...], as values
  void take(const Tensor& normalizers) {
    call.top = normalizers.select(0, 0).data_ptr(), call.sum = normalizers.select(0, 1).data_ptr();
  }
  bool is_empty() const { return call.rows == 0; }
};

// Runs f(begin, end, scratch) over the units, some 5 us of work at least to a thread.
template <class Function>
void for_each_unit(const Mixture& call, bool backward, const Function& f) {
  const MixtureUnits units(call, backward);
  const int64_t work = std::max<int64_t>(1, units.rows_each * call.cells());
  const int64_t bytes = kernels(call.in_double).mixture_scratch(call, backward);
  at::parallel_for(0, units.count, std::max<int64_t>(1, kMixtureGrain / work), [&](int64_t begin, int64_t end) {
    const Tensor scratch = at::empty({bytes}, at::kByte);
    f(begin, end, scratch.mutable_data_ptr());
  });
}

std::tuple<Tensor, Tensor> forward(const MixtureArguments& a, bool elements, bool with_normalizers) {
  Operands operands(a, elements);
  Mixture& call = operands.call;
  c10::DimVector sizes(a.z.sizes().slice(0, size_t(a.z.dim() - (elements ? 0 : 1))));
  const Tensor values = at::empty(sizes, operands.type);
  sizes.insert(sizes.begin(), 2);
  with_normalizers &= has_normalizers(a);
  const Tensor normalizers = with_normalizers ? at::empty(sizes, operands.type) : at::empty({0}, operands.type);
  if (operands.is_empty()) return {values, normalizers};
  call.values = values.mutable_data_ptr();
  if (with_normalizers) operands.take(normalizers);
  const auto kernel = kernels(call.in_double).mixture_forward;
  std::atomic<bool> legal{true};
  for_each_unit(call, /*backward=*/false, [&](int64_t begin, int64_t end, void* scratch) {
    if (!kernel(call, begin, end, scratch)) legal = false;
  });
  TORCH_CHECK_VALUE(legal,
                    "pyvae.mixture_log_prob or gaussian_log_prob: `std` must be 0 or more, but holds negative values");
  return {values, normalizers};
}

// weights [groups, K], the sums of each component's part, to those by its logit: less pi of all parts' sum.
void to_logits(const Tensor& log_weight, Tensor& weights) {
  const int64_t K = weights.size(1);
  double* const sums = weights.mutable_data_ptr<double>();
  const double* const logs = log_weight.const_data_ptr<double>();
  for (int64_t group = 0; group < weights.size(0); ++group) {
    double all = 0;
    for (int64_t k = 0; k < K; ++k) all += sums[group * K + k];
    for (int64_t k = 0; k < K; ++k) sums[group * K + k] -= std::exp(logs[group * K + k]) * all;
  }
}

MixtureGradients backward(const MixtureArguments& a, const Tensor& normalizers, const Tensor& grad, bool elements,
                          bool to_mixture) {
  Operands operands(a, elements);
  Mixture& call = operands.call;
  const Tensor given = operands.made(normalizers), upstream = operands.made(grad);
  const Tensor grad_z = at::empty(a.z.sizes(), operands.type);
  Tensor grad_mean, grad_scale, weights, sums;
  if (to_mixture) {
    grad_mean = at::empty(a.mean.sizes(), operands.type), grad_scale = at::empty(a.mean.sizes(), operands.type);
    weights = at::empty({call.groups, call.components}, at::kDouble);
  }
  if (operands.is_empty()) {
    if (to_mixture) grad_mean.zero_(), grad_scale.zero_(), weights.zero_();
  } else {
    if (has_normalizers(a)) operands.take(given);
    call.upstream = upstream.const_data_ptr(), call.grad_z = grad_z.mutable_data_ptr();
    const Kernels& kernel = kernels(call.in_double);
    const MixtureUnits units(call, /*backward=*/true);
    if (to_mixture) {
      call.grad_mean = grad_mean.mutable_data_ptr(), call.grad_scale = grad_scale.mutable_data_ptr();
      call.grad_weight = weights.mutable_data_ptr<double>();
    }
    if (to_mixture && units.parts > 1) {
      sums = at::empty({units.count, call.sums_each()}, at::kDouble);
      call.sums = sums.mutable_data_ptr<double>();
    }
    for_each_unit(call, /*backward=*/true, [&](int64_t begin, int64_t end, void* scratch) {
      kernel.mixture_backward(call, begin, end, scratch);
    });
    if (call.sums) {
      const int64_t chunks = (call.cells() + kChunk - 1) / kChunk;
      const int64_t grain = std::max<int64_t>(1, kMixtureGrain / (units.parts * kChunk));
      at::parallel_for(0, call.groups * chunks, grain,
                       [&](int64_t begin, int64_t end) { kernel.mixture_finish(call, begin, end); });
    }
    if (to_mixture && (call.features == 0 || call.is_posterior())) weights.zero_();
  }
  const Tensor by_z = grad_z.to(a.z.scalar_type());
  if (!to_mixture) return {by_z, Tensor(), Tensor(), Tensor()};
  Tensor by_logits;
  if (a.logits) {
    to_logits(operands.log_weight, weights);
    by_logits = weights.view(a.logits->sizes()).to(a.logits->scalar_type());
  }
  return {by_z, grad_mean.to(a.mean.scalar_type()), grad_scale.to(a.scale.scalar_type()), by_logits};
}

}  // namespace

extern const MixtureFunctions kMixture;
const MixtureFunctions kMixture = {.forward = forward, .backward = backward};

}  // namespace cpu

TORCH_LIBRARY_IMPL(pyvae, CPU, m) { implement_mixture<cpu::kMixture>(m, at::kCPU); }

}  // namespace pyvae
