// Encoder side: the autograd function. Its backward draws the noise again.
#include "ops/latent/autograd.h"

#include <torch/library.h>

#include "ops/autograd.h"
#include "ops/latent/checks.h"
#include "ops/latent/functions.h"

namespace pyvae {

namespace {

// The outputs of the autograd function: the sample with or without the divergence, or the divergence alone.
struct LatentCall {
  bool with_z = true, with_kl = true;
  int64_t reduction = kNone;
  bool drawn = false;  // the device draws the seed from `generator`
  std::optional<at::Generator> generator = std::nullopt;
};

std::tuple<Tensor, Tensor> forward(const LatentArguments& a, const LatentCall& call) {
  return run<&LatentFunctions::forward>("pyvae::latent_forward", direct<LatentFunctions>(a.mu, a), a, call.with_z,
                                        call.with_kl, call.reduction);
}

// Like `forward`, and also returns the seed.
std::tuple<Tensor, Tensor, Tensor> draw(const LatentArguments& a, const LatentCall& call) {
  return run<&LatentFunctions::draw>("pyvae::latent_draw", direct<LatentFunctions>(a.mu, a), a, call.generator,
                                     call.with_kl);
}

struct Latent : torch::autograd::Function<Latent> {
  // The order in which inputs are saved and the reference takes them: first those that may need a gradient.
  enum Input { kMu, kScale, kEps, kPriorMean, kPriorScale, kSeed, kInputs, kLow = kInputs, kHigh };

  static variable_list forward(AutogradContext* ctx, const LatentArguments* a, const LatentCall* call, const Tensor&,
                               const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                               const OptionalTensor&) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor z, kl, seed = value_or_undefined(a->seed);
    if (call->drawn) {
      std::tie(z, kl, seed) = draw(*a, *call);
    } else {
      std::tie(z, kl) = pyvae::forward(*a, *call);
    }
    if (!call->with_z) ctx->mark_non_differentiable({z});
    if (!call->with_kl) ctx->mark_non_differentiable({kl});
    ctx->set_materialize_grads(false);
    // The sample's gradients do not read mu.
    const Tensor mu = call->with_kl || !call->with_z ? a->mu : without_version_check(a->mu);
    ctx->save_for_backward({mu, a->scale, value_or_undefined(a->eps), value_or_undefined(a->prior_mean),
                            value_or_undefined(a->prior_scale), seed, value_or_undefined(a->low),
                            value_or_undefined(a->high)});
    ctx->saved_data["scale_kind"] = a->scale_kind;
    ctx->saved_data["row_offset"] = a->row_offset;
    ctx->saved_data["samples"] = a->samples;
    ctx->saved_data["reduction"] = call->with_z ? int64_t(-1) : call->reduction;
    return {z, kl};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int kBefore = 2;  // forward's arguments before the inputs
    const variable_list saved = ctx->get_saved_variables();
    const OptionalTensor eps = optional(saved[kEps]), seed = optional(saved[kSeed]);
    const OptionalTensor prior_mean = optional(saved[kPriorMean]), prior_scale = optional(saved[kPriorScale]);
    const OptionalTensor low = optional(saved[kLow]), high = optional(saved[kHigh]);
    const int64_t reduction = ctx->saved_data["reduction"].toInt();
    const LatentArguments a{.mu = saved[kMu],
                            .scale = saved[kScale],
                            .scale_kind = ctx->saved_data["scale_kind"].toInt(),
                            .low = low,
                            .high = high,
                            .eps = eps,
                            .seed = seed,
                            .row_offset = ctx->saved_data["row_offset"].toSymInt(),
                            .prior_mean = prior_mean,
                            .prior_scale = prior_scale,
                            .samples = ctx->saved_data["samples"].toSymInt()};
    variable_list out(kBefore + kInputs);
    std::vector<bool> needs_grad = needs_input_grad(ctx, {saved.begin(), saved.begin() + kSeed});
    needs_grad.resize(saved.size(), false);
    check("reparameterize", find_error(a));  // saved-tensor hooks may return anything
    if (at::GradMode::is_enabled() || has_tangent(grads) || needs_grad[kEps]) {
      const std::vector<int64_t> codes = {a.scale_kind, a.row_offset.expect_int(), a.samples.expect_int()};
      ReferenceCall call{"reparameterize", saved, codes, {}, grads, needs_grad};
      if (reduction >= 0)
        call.name = "kl_divergence", call.codes = {a.scale_kind, reduction}, call.upstream = {grads[1]};
      const variable_list gradients = reference_gradient()(call);
      std::copy(gradients.begin(), gradients.begin() + kInputs, out.begin() + kBefore);
      return out;
    }
    if (!grads[0].defined() && !grads[1].defined()) return out;
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor grad_kl = grads[1];
    if (grad_kl.defined() && reduction == kBatchMean) grad_kl = grad_kl.div(batch_size(a.mu));
    const OptionalTensor to_z = optional(grads[0]), to_kl = optional(grad_kl);
    const bool to_prior = to_kl && (needs_grad[kPriorMean] || needs_grad[kPriorScale]);
    const LatentFunctions* const functions =
        is_plain(to_z) && is_plain(to_kl) ? direct<LatentFunctions>(a.mu, a) : nullptr;
    auto [grad_mu, grad_scale, grad_prior_mean, grad_prior_scale] =
        run<&LatentFunctions::backward>("pyvae::latent_backward", functions, a, to_z, to_kl, to_prior);
    out[kBefore + kMu] = grad_mu, out[kBefore + kScale] = grad_scale;
    if (to_prior) out[kBefore + kPriorMean] = grad_prior_mean, out[kBefore + kPriorScale] = grad_prior_scale;
    return out;
  }

  static variable_list of(const LatentArguments& a, const LatentCall& call) {
    return apply(&a, &call, a.mu, a.scale, a.eps, a.prior_mean, a.prior_scale, a.seed);
  }
};

std::tuple<Tensor, Tensor> latent(const LatentArguments& a, const LatentCall& call) {
  if (needs_gradient(a)) {
    const variable_list out = Latent::of(a, call);
    return {out[0], out[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  if (!call.drawn) return forward(a, call);
  auto [z, kl, seed] = draw(a, call);
  return {z, kl};
}

}  // namespace

std::tuple<Tensor, Tensor> reparameterize(const LatentArguments& a, bool with_kl) {
  LatentCall call;
  call.with_kl = with_kl;
  return latent(a, call);
}

std::tuple<Tensor, Tensor> reparameterize_drawn(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                                bool with_kl) {
  LatentCall call;
  call.with_kl = with_kl, call.drawn = true, call.generator = generator;
  return latent(a, call);
}

Tensor kl_divergence(const LatentArguments& a, int64_t reduction) {
  LatentCall call;
  call.with_z = false, call.reduction = reduction;
  return std::get<1>(latent(a, call));
}

namespace {

// Registered with the dispatcher, so their arguments are unchecked.
std::tuple<Tensor, Tensor> checked_reparameterize(const LatentArguments& a, bool with_kl) {
  check("reparameterize", find_error(a));
  check("reparameterize", find_noise_error(a));
  return reparameterize(a, with_kl);
}

Tensor checked_kl_divergence(const LatentArguments& a, int64_t reduction) {
  check("kl_divergence", find_error(a));
  check("kl_divergence", find_reduction_error(reduction));
  return kl_divergence(a, reduction);
}

// If no gradient is needed, these only run the forward kernel, so one function serves both keys.
void implement_differentiable(torch::Library& m) {
  m.impl("reparameterize", flat<&checked_reparameterize>());
  m.impl("kl_divergence", flat<&checked_kl_divergence>());
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) { implement_differentiable(m); }
TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { implement_differentiable(m); }

}  // namespace pyvae
