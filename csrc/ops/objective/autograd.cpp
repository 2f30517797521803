// Decoder side: backward hands out the gradient that the forward pass wrote, once; after that it computes it again.
#include "ops/objective/autograd.h"

#include <ATen/ops/ones.h>

#include <algorithm>

#include "ops/autograd.h"
#include "ops/latent/functions.h"
#include "ops/objective/implement.h"
#include "ops/objective/saved_gradients.h"

namespace pyvae {

namespace {

// Through the dispatcher all three outputs are always returned; the direct call can skip the terms.
std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t output_mask, bool with_terms) {
  if (const auto* const functions = direct<ObjectiveFunctions>(a.recon, a)) {
    RECORD_FUNCTION("pyvae::elbo_forward", c10::ArrayRef<const c10::IValue>());
    return functions->forward(a, output_mask, with_terms ? TermOutputs::kMayShareStorage : TermOutputs::kSkip);
  }
  static const auto op = find_operator<ElboForward>("pyvae::elbo_forward");
  auto [loss, recon_term, kl_term, recon, parameters, log_library] = call(op, a, output_mask);
  return {loss, recon_term, kl_term, from_outputs({recon, parameters, log_library})};
}

// The sum of two gradients; either may be absent (undefined).
Tensor plus(const Tensor& a, const Tensor& b) { return !a.defined() ? b : (b.defined() ? a + b : a); }

// Rescales recon's gradient [B, ...] as a function, for a tracer: elbo_backward_ works on a copy. It decides by the
// upstream gradient's value whether 16-bit numbers must be computed again, which a tracer cannot do.
Tensor elbo_backward(const ElboArguments& a, const Tensor& gradient, const OptionalTensor& grad_loss,
                     const OptionalTensor& grad_recon) {
  check("elbo_backward", find_error(a));
  check("elbo_backward", find_gradient_error(a, gradient, {}, grad_loss, grad_recon, std::nullopt, /*to_kl=*/false));
  Tensor out = gradient.clone();
  constexpr const ObjectiveFunctions* kThroughDispatcher = nullptr;
  run<&ObjectiveFunctions::backward_>("pyvae::elbo_backward_", kThroughDispatcher, a, OptionalTensor(out),
                                      at::TensorList(), grad_loss, grad_recon, kAbsent, /*to_kl=*/false);
  return out;
}

// buffer [B, ...] times upstream, [B] or scalar. A tracer can follow it.
Tensor scaled(const Tensor& buffer, const Tensor& upstream) {
  c10::SymDimVector sizes(upstream.dim() == 0 ? 0 : size_t(buffer.dim()), 1);
  if (!sizes.empty()) sizes[0] = buffer.sym_size(0);
  return (buffer * upstream.reshape_symint(sizes)).to(buffer.scalar_type());
}

struct Elbo : torch::autograd::Function<Elbo> {
  // The order in which inputs are saved and the reference takes them. There is a slot for as many parameters as any
  // likelihood has; unused ones are absent.
  enum Input : int64_t {
    kRecon,
    kTarget,
    kMu,
    kScale,
    kKl,
    kParameter,
    kLogLibrary = kParameter + kMaxParameters,
    kBeta,
    kWeight,
    kPosWeight,
    kInputs
  };
  static int64_t input_of(int64_t place) {
    return place == kGradRecon ? kRecon : place == kGradLogLibrary ? kLogLibrary : kParameter + place - kGradParameter;
  }

  template <class... Inputs>
  static variable_list forward(AutogradContext* ctx, const ElboArguments* a, bool with_terms, const Inputs&... inputs) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const int64_t output_mask = gradients_in_forward(*a);
    auto [loss, recon_term, kl_term, gradients] = pyvae::forward(*a, output_mask, with_terms);
    ctx->set_materialize_grads(false);
    variable_list saved = {value_or_undefined(inputs)...};
    if (!requires_grad(a->mu) && !requires_grad(a->scale) && !requires_grad(a->beta_tensor)) {
      for (const Input i : {kMu, kScale, kKl}) saved[i] = without_version_check(saved[i]);
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["beta"] = a->beta;
    ctx->saved_data["codes"] = std::vector<int64_t>{a->scale_kind, a->likelihood, a->reduction};
    for (int64_t place = 0; place <= kKept; ++place) {
      if (is_set(output_mask, place)) ctx->saved_data[buffer_name(place)] = gradients[place];
    }
    return with_terms ? variable_list{loss, recon_term, kl_term} : variable_list{loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int kBefore = 2;  // forward's arguments before the inputs
    grads.resize(3);
    const std::vector<int64_t> codes = ctx->saved_data["codes"].toIntVector();
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<bool> needs_grad = needs_input_grad(ctx, saved);
    OptionalTensor given[kInputs];
    for (int64_t i = 0; i < kInputs; ++i) given[i] = optional(saved[i]);
    Parameters parameters;
    for (int64_t i = kParameter; i < kLogLibrary && given[i]; ++i) parameters.push_back(given[i]);
    const ElboArguments a{.recon = saved[kRecon],
                          .target = saved[kTarget],
                          .mu = given[kMu],
                          .scale = given[kScale],
                          .scale_kind = codes[0],
                          .kl = given[kKl],
                          .likelihood = codes[1],
                          .parameters = parameters,
                          .log_library = given[kLogLibrary],
                          .beta = ctx->saved_data["beta"].toDouble(),
                          .beta_tensor = given[kBeta],
                          .weight = given[kWeight],
                          .pos_weight = given[kPosWeight],
                          .reduction = codes[2]};
    variable_list out(kBefore + kInputs);
    const auto gradient_of = [&out](int64_t place) -> Tensor& { return out[kBefore + input_of(place)]; };

    check("elbo", find_error(a));  // saved-tensor hooks may return anything
    if (at::GradMode::is_enabled() || has_tangent(grads) || needs_grad[kTarget] || needs_grad[kWeight] ||
        needs_grad[kPosWeight] || needs_grad[kBeta] || (is_batched(grads) && !has_buffers(ctx, a, needs_grad))) {
      const variable_list gradients = reference_gradient()({"elbo", saved, codes, {a.beta}, grads, needs_grad});
      std::copy(gradients.begin(), gradients.end(), out.begin() + kBefore);
      return out;
    }
    const Tensor upstream = plus(grads[0], grads[1]);
    int64_t output_mask = 0;
    for (int64_t place = 0; place < kGradients; ++place) {
      output_mask |= int64_t(upstream.defined() && needs_grad[input_of(place)]) << place;
    }
    const bool to_kl =
        (needs_grad[kKl] || needs_grad[kMu] || needs_grad[kScale]) && (grads[0].defined() || grads[2].defined());
    const at::AutoDispatchBelowADInplaceOrView below;
    const OptionalTensor grad_loss = optional(grads[0]), grad_recon = optional(grads[1]), grad_kl = optional(grads[2]);
    const ObjectiveFunctions* const functions = is_plain(grad_loss) && is_plain(grad_recon) && is_plain(grad_kl)
                                                    ? direct<ObjectiveFunctions>(a.recon, a)
                                                    : nullptr;
    Tensor kl_gradient;  // [B], or a scalar for all rows
    if (functions) {
      for (int64_t place = 0; place < kGradients; ++place) {
        if (is_set(output_mask, place)) gradient_of(place) = take_buffer(ctx, place);
      }
      const bool unscaled = stores_unscaled_gradients(a, functions);
      const bool on_cpu = upstream.defined() && a.recon.is_cpu();
      const bool on_host = on_cpu && functions->compares_rows;
      const Tensor factor = on_cpu ? as_scalar_if_uniform(upstream) : upstream;
      int64_t scaled_places = unscaled ? 0 : output_mask;  // computed with the upstream gradient
      for (int64_t place = 0; place < kGradients && unscaled && on_host && factor.dim() == 1; ++place) {
        if (!is_set(output_mask, place) || is_scalable(a, place)) continue;
        scaled_places |= int64_t(1) << place;
        gradient_of(place) = Tensor();
      }
      compute_missing_gradients(a, functions, factor, /*unscaled=*/false, scaled_places, gradient_of);
      Tensor kept = compute_missing_gradients(a, functions, upstream, /*unscaled=*/true, output_mask & ~scaled_places,
                                              gradient_of);
      const bool on_device = unscaled && !on_host && !are_scalable(a, output_mask);  // the device compares the rows
      if (on_device) {
        const auto entry = ctx->saved_data.find(buffer_name(kKept));
        if (entry != ctx->saved_data.end()) kept = entry->second.toTensor();
        Gradients all = {};
        for (int64_t place = 0; place < kGradients; ++place) all[place] = gradient_of(place);
        all[kKept] = kept;
        RECORD_FUNCTION("pyvae::elbo_backward_", c10::ArrayRef<const c10::IValue>());
        std::tie(out[kBefore + kMu], out[kBefore + kScale], kl_gradient) =
            functions->backward_rows_(a, all, grad_loss, grad_recon, grad_kl, to_kl);
        for (int64_t place = 0; place < kGradients; ++place) gradient_of(place) = all[place];
      }
      // On the CPU we can see here that nothing has to be scaled; on CUDA the kernel finds out.
      const bool to_scale = unscaled && !on_device && !(on_cpu && is_one(factor));
      c10::SmallVector<Tensor, kGradients> others;
      for (int64_t place = kGradRecon + 1; place < kGradients && to_scale; ++place) {
        const bool is_scaled = is_set(scaled_places, place);
        if (!is_scaled && gradient_of(place).defined()) others.push_back(gradient_of(place));
      }
      const OptionalTensor gradient = to_scale ? optional(gradient_of(kGradRecon)) : std::nullopt;
      if (gradient || !others.empty() || (to_kl && !on_device)) {
        std::tie(out[kBefore + kMu], out[kBefore + kScale], kl_gradient) =
            run<&ObjectiveFunctions::backward_>("pyvae::elbo_backward_", functions, a, gradient, at::TensorList(others),
                                                grad_loss, grad_recon, grad_kl, to_kl);
      }
    } else {
      for (int64_t place = 0; place < kGradients; ++place) {
        const auto entry = ctx->saved_data.find(buffer_name(place));
        if (!is_set(output_mask, place) || entry == ctx->saved_data.end() || !is_scalable(a, place)) continue;
        const Tensor buffer = entry->second.toTensor();
        if (is_in_16_bits(buffer)) {  // recon's: parameters' gradients are not stored unscaled in 16 bits
          static const auto op = find_operator<decltype(&elbo_backward)>("pyvae::elbo_backward");
          gradient_of(place) = call(op, a, buffer, grad_loss, grad_recon);
        } else {
          gradient_of(place) = scaled(buffer, upstream);
        }
      }
      compute_missing_gradients(a, functions, upstream, /*unscaled=*/false, output_mask, gradient_of);
      if (to_kl) kl_gradient = traced_kl_gradient(a, grads);
      if (to_kl && a.mu) {
        constexpr const LatentFunctions* kThroughDispatcher = nullptr;
        std::tie(out[kBefore + kMu], out[kBefore + kScale], std::ignore, std::ignore) =
            run<&LatentFunctions::backward>("pyvae::latent_backward", kThroughDispatcher, a.posterior(), kAbsent,
                                            OptionalTensor(kl_gradient), /*to_prior=*/false);
      }
    }
    if (to_kl && a.kl) {
      out[kBefore + kKl] = kl_gradient.dim() == 0 ? kl_gradient.expand_symint({a.recon.sym_size(0)}) : kl_gradient;
    }
    return out;
  }

  // Computes the gradients in the mask that the forward pass has not computed, or that were handed out before. If
  // `unscaled`: the same bits as in the forward pass, and returns what that keeps with them (kKept). Otherwise: times
  // upstream, [B] or scalar, before anything is rounded.
  template <class GradientOf>
  static Tensor compute_missing_gradients(const ElboArguments& a, const ObjectiveFunctions* functions,
                                          const Tensor& upstream, bool unscaled, int64_t output_mask,
                                          const GradientOf& gradient_of) {
    for (int64_t place = 0; place < kGradients; ++place) {
      if (gradient_of(place).defined()) output_mask &= ~(int64_t(1) << place);
    }
    if (output_mask == 0) return Tensor();
    Tensor factor = unscaled ? at::ones({}, upstream.options().dtype(at::kDouble)) : upstream;
    if (a.reduction == kBatchMean) factor = factor.div(batch_size(a.recon));
    const Gradients found = compute_gradients(a, functions, factor.expand_symint({a.recon.sym_size(0)}),
                                              unscaled ? with_kept(a, functions, output_mask) : output_mask);
    for (int64_t place = 0; place < kGradients; ++place) {
      if (is_set(output_mask, place)) gradient_of(place) = found[place];
    }
    return found[kKept];
  }

  // The KL's upstream gradient, as elbo_backward_ computes it, from operators that a tracer can follow.
  static Tensor traced_kl_gradient(const ElboArguments& a, const variable_list& grads) {
    Tensor from_loss = grads[0];
    if (from_loss.defined() && a.beta_tensor) from_loss = from_loss * *a.beta_tensor;
    if (from_loss.defined() && a.beta != 1) from_loss = from_loss * a.beta;
    Tensor out = plus(from_loss, grads[2]);
    if (a.reduction == kBatchMean) out = out.div(batch_size(a.recon));
    return a.kl ? out.to(a.kl->scalar_type()) : out;
  }

  // Whether the forward pass has computed all required gradients, and any upstream gradient can multiply them.
  static bool has_buffers(const AutogradContext* ctx, const ElboArguments& a, const std::vector<bool>& needs_grad) {
    for (int64_t place = 0; place < kGradients; ++place) {
      if (!needs_grad[input_of(place)]) continue;
      if (!is_scalable(a, place) || ctx->saved_data.count(buffer_name(place)) == 0) return false;
    }
    return true;
  }

  // `apply` tracks only tensors and optional tensors as inputs: gradients of tensors in a list would be lost.
  template <size_t... k>
  static variable_list of(const ElboArguments& a, bool with_terms, std::index_sequence<k...>) {
    const auto parameter = [&a](size_t i) -> const OptionalTensor& {
      return i < a.parameters.size() ? a.parameters[i] : kAbsent;
    };
    return apply(&a, with_terms, a.recon, a.target, a.mu, a.scale, a.kl, parameter(k)..., a.log_library, a.beta_tensor,
                 a.weight, a.pos_weight);
  }
};

// Registered with the dispatcher, so its arguments are unchecked.
std::tuple<Tensor, Tensor, Tensor> checked_elbo(const ElboArguments& a) {
  check("elbo", find_error(a));
  const variable_list out = elbo(a, /*with_terms=*/true);
  return {out[0], out[1], out[2]};
}

}  // namespace

variable_list elbo(const ElboArguments& a, bool with_terms) {
  if (needs_gradient(a)) return Elbo::of(a, with_terms, std::make_index_sequence<kMaxParameters>());
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [loss, recon_term, kl_term, none] = forward(a, /*output_mask=*/0, with_terms);
  return {loss, recon_term, kl_term};
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) {
  m.impl("elbo", flat<&checked_elbo>());
  m.impl("elbo_backward", flat<&elbo_backward>());
}
TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { m.impl("elbo", flat<&checked_elbo>()); }

}  // namespace pyvae
