// Encoder side on the CPU: allocate and run.
#include "ops/latent/cpu.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <atomic>

#include "ops/broadcast.h"
#include "ops/dtypes.h"
#include "ops/latent/implement.h"
#include "ops/layout.h"

namespace pyvae {
namespace cpu {

namespace {

uint64_t seed_of(const LatentArguments& a) { return a.seed ? uint64_t(*a.seed->const_data_ptr<int64_t>()) : 0; }

// Runs the forward kernel: writes the sample to z, if z is defined, and returns the divergence if `with_kl`.
Doubles run_forward(const LatentArguments& a, const LatentTensors& tensors, bool with_kl, int64_t reduction) {
  LatentForward call{};
  tensors.lay_out(a, call);
  const Chunks chunks(call.shape);
  Doubles partials(with_kl ? chunks.partials() : 0, 0.0);
  call.seed = seed_of(a);
  call.divergence = with_kl ? partials.data() : nullptr;
  if (a.mu.numel() > 0) {
    const auto kernel = kernels(call.in_double).latent_forward;
    std::atomic<bool> legal{true};
    at::parallel_for(0, chunks.count, kLatentGrain, [&](int64_t begin, int64_t end) {
      if (!kernel(call, begin, end)) legal = false;
    });
    TORCH_CHECK_VALUE(legal,
                      "pyvae.reparameterize, reparameterize_kl, kl_divergence, elbo_loss or elbo_terms: `std` and the "
                      "prior's must be 0 or more, but hold negative values");
  }
  return with_kl ? reduce_rows(chunks.rows, chunks.per_row, partials.data(), reduction) : Doubles();
}

// Allocates the gradients of mu and scale and, with `to_prior`, of the prior, per element, and runs the backward
// kernel. `grad_kl`: the gradient of each row's divergence [B]; null: 0, or each element has its own.
void run_backward(const LatentArguments& a, LatentTensors& tensors, const double* grad_kl, bool to_prior) {
  tensors.grad_mu = empty_output(tensors.mu, a.mu.scalar_type());
  tensors.grad_scale = empty_output(tensors.scale, a.scale.scalar_type());
  if (to_prior) {
    const at::ScalarType type = compute_type(a.mu, a.scale);
    tensors.grad_prior_mean = empty_output(tensors.mu, type);
    tensors.grad_prior_scale = empty_output(tensors.mu, type);
  }
  if (a.mu.numel() == 0) return;
  LatentBackward call{};
  tensors.lay_out(a, call);
  call.seed = seed_of(a);
  call.grad_kl = grad_kl;
  const auto kernel = kernels(call.in_double).latent_backward;
  at::parallel_for(0, Chunks(call.shape).count, kLatentGrain,
                   [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
}

std::tuple<Tensor, Tensor> forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction) {
  LatentTensors tensors = with_z ? LatentTensors(a, std::nullopt) : LatentTensors(a);
  if (with_z) tensors.z = a.samples == 0 ? empty_output(tensors.mu, sample_type(a)) : empty_sample(a);
  const at::ScalarType type = compute_type(a.mu, a.scale);
  const bool of_elements = with_kl && reduction == kElements;
  if (of_elements) tensors.elements = empty_output(tensors.mu, type);
  const Doubles kl = run_forward(a, tensors, with_kl && !of_elements, reduction);
  return {with_z ? tensors.z : at::empty({0}, sample_type(a)),
          of_elements ? tensors.elements : (with_kl ? to_tensor(kl, reduction, type) : at::empty({0}, type))};
}

std::tuple<Tensor, Tensor, Tensor> draw(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                        bool with_kl) {
  auto* const own = at::get_generator_or_default<at::CPUGeneratorImpl>(generator, at::detail::getDefaultCPUGenerator());
  const OptionalTensor seed = at::empty({1}, at::kLong);
  {
    const std::lock_guard<std::mutex> lock(own->mutex_);
    // Drawn like torch.randint(-2**63, 2**63 - 1), so that the reference makes the same noise.
    *seed->mutable_data_ptr<int64_t>() = int64_t(own->random64() % ~uint64_t(0) + (uint64_t(1) << 63));
  }
  const LatentArguments seeded{.mu = a.mu,
                               .scale = a.scale,
                               .scale_kind = a.scale_kind,
                               .low = a.low,
                               .high = a.high,
                               .eps = a.eps,
                               .seed = seed,
                               .row_offset = a.row_offset,
                               .prior_mean = a.prior_mean,
                               .prior_scale = a.prior_scale,
                               .samples = a.samples};
  auto [z, kl] = forward(seeded, true, with_kl, kNone);
  return {z, kl, *seed};
}

LatentGradients backward(const LatentArguments& a, const OptionalTensor& grad_z, const OptionalTensor& grad_kl,
                         bool to_prior) {
  if (!grad_z && !grad_kl) return {at::zeros_like(a.mu), at::zeros_like(a.scale), Tensor(), Tensor()};
  LatentTensors tensors(a, grad_z, grad_kl);
  const bool per_row = grad_kl && !tensors.grad_elements.defined();
  Doubles upstream = per_row ? read_doubles(*grad_kl) : Doubles();
  if (per_row && grad_kl->dim() == 0) upstream.assign(size_t(a.mu.size(0)), upstream[0]);
  run_backward(a, tensors, per_row ? upstream.data() : nullptr, to_prior);
  if (!to_prior) return {tensors.grad_mu, tensors.grad_scale, Tensor(), Tensor()};
  return {tensors.grad_mu, tensors.grad_scale,
          sum_to(tensors.grad_prior_mean, a.prior_mean->sizes(), a.prior_mean->scalar_type()),
          sum_to(tensors.grad_prior_scale, a.prior_scale->sizes(), a.prior_scale->scalar_type())};
}

}  // namespace

Doubles divergence(const LatentArguments& a, int64_t reduction) {
  return run_forward(a, LatentTensors(a), /*with_kl=*/true, reduction);
}

std::pair<Tensor, Tensor> divergence_backward(const LatentArguments& a, const Doubles& upstream) {
  LatentTensors tensors(a);
  run_backward(a, tensors, upstream.data(), /*to_prior=*/false);
  return {tensors.grad_mu, tensors.grad_scale};
}

extern const LatentFunctions kLatent;
const LatentFunctions kLatent = {.forward = forward, .draw = draw, .backward = backward};

}  // namespace cpu

TORCH_LIBRARY_IMPL(pyvae, CPU, m) { implement_latent<cpu::kLatent>(m, at::kCPU); }

}  // namespace pyvae
