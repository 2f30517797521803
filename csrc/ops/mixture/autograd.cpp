// The log density's autograd function. Its backward uses the sums that forward saved.
#include "ops/mixture/autograd.h"

#include <torch/library.h>

#include "ops/autograd.h"
#include "ops/mixture/checks.h"
#include "ops/mixture/functions.h"

namespace pyvae {

namespace {

std::tuple<Tensor, Tensor> forward(const MixtureArguments& a, bool elements, bool with_normalizers) {
  return run<&MixtureFunctions::forward>("pyvae::mixture_forward", direct<MixtureFunctions>(a.z, a), a, elements,
                                         with_normalizers);
}

struct MixtureLogProb : torch::autograd::Function<MixtureLogProb> {
  // The order in which inputs are saved and the reference takes them: first those that may need a gradient.
  enum Input { kZ, kMean, kScale, kLogits, kInputs, kLow = kInputs, kHigh, kNormalizers };

  static variable_list forward(AutogradContext* ctx, const MixtureArguments* a, bool elements, const Tensor&,
                               const Tensor&, const Tensor&, const OptionalTensor&) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [values, normalizers] = pyvae::forward(*a, elements, /*with_normalizers=*/true);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({a->z, a->mean, a->scale, value_or_undefined(a->logits), value_or_undefined(a->low),
                            value_or_undefined(a->high), normalizers});
    ctx->saved_data["scale_kind"] = a->scale_kind;
    ctx->saved_data["elements"] = elements;
    return {values};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int kBefore = 2;  // forward's arguments before the inputs
    variable_list out(kBefore + kInputs);
    const Tensor& upstream = grads[0];  // shaped like the result
    if (!upstream.defined()) return out;
    const variable_list saved = ctx->get_saved_variables();
    const OptionalTensor logits = optional(saved[kLogits]), low = optional(saved[kLow]), high = optional(saved[kHigh]);
    const bool elements = ctx->saved_data["elements"].toBool();
    const MixtureArguments a{.z = saved[kZ],
                             .mean = saved[kMean],
                             .scale = saved[kScale],
                             .scale_kind = ctx->saved_data["scale_kind"].toInt(),
                             .logits = logits,
                             .low = low,
                             .high = high};
    std::vector<bool> needs_grad = needs_input_grad(ctx, {saved.begin(), saved.begin() + kInputs});
    needs_grad.resize(saved.size(), false);
    check("mixture_log_prob", find_error(a));  // saved-tensor hooks may return anything
    check("mixture_log_prob", find_gradient_error(a, saved[kNormalizers], upstream, elements));
    if (at::GradMode::is_enabled() || has_tangent(grads) || is_batched(grads)) {
      const variable_list gradients =
          reference_gradient()({"mixture_log_prob", saved, {a.scale_kind, elements}, {}, grads, needs_grad});
      std::copy(gradients.begin(), gradients.begin() + kInputs, out.begin() + kBefore);
      return out;
    }
    const at::AutoDispatchBelowADInplaceOrView below;
    const bool to_mixture = needs_grad[kMean] || needs_grad[kScale] || needs_grad[kLogits];
    const MixtureFunctions* const functions = is_plain(upstream) ? direct<MixtureFunctions>(a.z, a) : nullptr;
    auto [z, mean, scale, weights] = run<&MixtureFunctions::backward>(
        "pyvae::mixture_backward", functions, a, saved[kNormalizers], upstream, elements, to_mixture);
    out[kBefore + kZ] = z;
    if (to_mixture) out[kBefore + kMean] = mean, out[kBefore + kScale] = scale;
    if (to_mixture && logits) out[kBefore + kLogits] = weights;
    return out;
  }
};

// Registered with the dispatcher, so its arguments are unchecked.
Tensor checked_mixture_log_prob(const MixtureArguments& a, bool elements) {
  check("mixture_log_prob", find_error(a));
  return mixture_log_prob(a, elements);
}

// If no gradient is needed, this only runs the forward kernel, so one function serves both keys.
void implement_differentiable(torch::Library& m) { m.impl("mixture_log_prob", flat<&checked_mixture_log_prob>()); }

}  // namespace

Tensor mixture_log_prob(const MixtureArguments& a, bool elements) {
  if (needs_gradient(a)) return MixtureLogProb::apply(&a, elements, a.z, a.mean, a.scale, a.logits)[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return std::get<0>(forward(a, elements, /*with_normalizers=*/false));
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) { implement_differentiable(m); }
TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { implement_differentiable(m); }

}  // namespace pyvae
