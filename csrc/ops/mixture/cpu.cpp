// The log density on the CPU: allocate and run.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/cpu/tensors.h"
#include "ops/mixture/implement.h"
#include "ops/mixture/tensors.h"

namespace pyvae {
namespace cpu {

namespace {

// Runs f(begin, end, scratch) over the units, with at least some 5 us of work per thread.
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
  Mixture call{};
  const MixtureTensors tensors(a, elements, call);
  const auto [values, normalizers] = empty_values(a, elements, with_normalizers, tensors.type);
  if (call.rows == 0) return {values, normalizers};
  call.values = values.mutable_data_ptr();
  if (normalizers.numel() > 0) lay_out_normalizers(normalizers, call);
  const auto kernel = kernels(call.in_double).mixture_forward;
  std::atomic<bool> legal{true};
  for_each_unit(call, /*backward=*/false, [&](int64_t begin, int64_t end, void* scratch) {
    if (!kernel(call, begin, end, scratch)) legal = false;
  });
  TORCH_CHECK_VALUE(legal,
                    "pyvae.mixture_log_prob or gaussian_log_prob: `std` must be 0 or more, but holds negative values");
  return {values, normalizers};
}

// Turns weights [groups, K], the sums of r per component, into gradients by logit: subtracts pi times the group's
// total.
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
  Mixture call{};
  const MixtureTensors tensors(a, elements, call);
  const Tensor given = tensors.made(normalizers), upstream = tensors.made(grad);
  const Tensor grad_z = at::empty(a.z.sizes(), tensors.type);
  Tensor grad_mean, grad_scale, weights, sums;
  if (to_mixture) {
    grad_mean = at::empty(a.mean.sizes(), tensors.type), grad_scale = at::empty(a.mean.sizes(), tensors.type);
    weights = at::empty({call.groups, call.components}, at::kDouble);
  }
  if (call.rows == 0) {
    if (to_mixture) grad_mean.zero_(), grad_scale.zero_(), weights.zero_();
  } else {
    if (has_normalizers(a)) lay_out_normalizers(given, call);
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
    to_logits(tensors.log_weight, weights);
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
