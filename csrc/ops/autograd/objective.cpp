// Decoder side: hand out the gradient that the forward pass wrote, once; after that, compute it again.
#include <ATen/SavedTensorHooks.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "ops/autograd/function.h"
#include "ops/implement.h"

namespace pyvae {

namespace {

// With terms where the dispatcher is asked: an operator's results are all there.
std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t wanted, bool with_terms) {
  if (const Device* const device = direct_device(a.recon, a)) {
    RECORD_FUNCTION("pyvae::elbo_forward", c10::ArrayRef<const c10::IValue>());
    return device->elbo_forward(a, wanted, with_terms ? Breakdown::kWanted : Breakdown::kNone);
  }
  using Operator =
      std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> (*)(const ElboArguments&, int64_t);
  static const auto op = find_operator<Operator>("pyvae::elbo_forward");
  auto [loss, recon_term, kl_term, of_recon, of_first, of_second, of_library] = call(op, a, wanted);
  return {loss, recon_term, kl_term, {of_recon, of_first, of_second, of_library}};
}

Gradients gradients(const LikelihoodArguments& a, const Device* device, const Tensor& upstream, int64_t wanted) {
  if (device) {
    RECORD_FUNCTION("pyvae::elbo_gradient", c10::ArrayRef<const c10::IValue>());
    return device->elbo_gradient(a, upstream, wanted);
  }
  using Operator = std::tuple<Tensor, Tensor, Tensor, Tensor> (*)(const LikelihoodArguments&, const Tensor&, int64_t);
  static const auto op = find_operator<Operator>("pyvae::elbo_gradient");
  auto [of_recon, of_first, of_second, of_library] = call(op, a, upstream, wanted);
  return {of_recon, of_first, of_second, of_library};
}

bool is_in_16_bits(const OptionalTensor& tensor) { return tensor && at::elementSize(tensor->scalar_type()) <= 2; }

// Whether gradients are made without the upstream gradient, by which they are multiplied afterwards. Not those by a
// likelihood's parameters where each row has an upstream gradient of its own, since they are sums over rows; and not in
// 16 bits, which would round them before the upstream gradient (a loss scale, say) comes. Of the plain likelihoods the
// backward kernel sees to that.
bool are_made_apart(const ElboArguments& a) {
  return !kTraits[a.likelihood].goes_by_rows ||
         (a.reduction != kNone && !is_in_16_bits(a.recon) && !is_in_16_bits(a.parameter) &&
          !is_in_16_bits(a.second_parameter) && !is_in_16_bits(a.log_library));
}

// Whether the forward pass makes them: not where hooks pack what is saved (torch.utils.checkpoint, offloading), which
// would not see them.
bool are_made_early(const ElboArguments& a) { return !at::SavedTensorDefaultHooks::get_hooks() && are_made_apart(a); }

// The sum of two gradients of which each may be absent (undefined).
Tensor plus(const Tensor& a, const Tensor& b) { return !a.defined() ? b : (b.defined() ? a + b : a); }

// The rescaling of recon's gradient [B, ...] as a function, for a tracer: a copy, on which elbo_backward_ works. It
// decides by the upstream gradient's value, which a tracer cannot, whether 16-bit numbers have to be made anew.
Tensor elbo_backward(const ElboArguments& a, const Tensor& gradient, const OptionalTensor& grad_loss,
                     const OptionalTensor& grad_recon) {
  check("elbo_backward", refuse(a));
  check("elbo_backward", refuse_gradients(a, gradient, grad_loss, grad_recon, std::nullopt, /*to_kl=*/false));
  Tensor out = gradient.clone();
  run<&Device::elbo_backward_>("pyvae::elbo_backward_", nullptr, a, OptionalTensor(out), grad_loss, grad_recon, kAbsent,
                               /*to_kl=*/false);
  return out;
}

// buffer [B, ...] times upstream, [B] or scalar, for a tracer, too.
Tensor scaled(const Tensor& buffer, const Tensor& upstream) {
  c10::SymDimVector sizes(upstream.dim() == 0 ? 0 : size_t(buffer.dim()), 1);
  if (!sizes.empty()) sizes[0] = buffer.sym_size(0);
  return (buffer * upstream.reshape_symint(sizes)).to(buffer.scalar_type());
}

struct Elbo : torch::autograd::Function<Elbo> {
  // The gradients that the forward pass made, among saved_data.
  static constexpr const char* kBuffers[kGradients] = {"gradient", "parameter_gradient", "second_parameter_gradient",
                                                       "library_gradient"};
  // The inputs as saved, and as the reference takes them.
  enum Input {
    kRecon,
    kTarget,
    kMu,
    kScale,
    kKl,
    kWeight,
    kPosWeight,
    kBeta,
    kParameter,
    kSecondParameter,
    kLibrary,
    kInputs
  };
  static constexpr Input kGradientInputs[kGradients] = {kRecon, kParameter, kSecondParameter, kLibrary};

  template <class... Inputs>
  static variable_list forward(AutogradContext* ctx, const ElboArguments* a, bool with_terms, const Inputs&... inputs) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto requires_grad = [](const OptionalTensor& tensor) { return tensor && tensor->requires_grad(); };
    int64_t wanted = a->recon.requires_grad() << kOfRecon | requires_grad(a->parameter) << kOfParameter |
                     requires_grad(a->second_parameter) << kOfSecondParameter |
                     requires_grad(a->log_library) << kOfLibrary;
    if (!are_made_early(*a)) wanted = 0;
    auto [loss, recon_term, kl_term, gradients] = pyvae::forward(*a, wanted, with_terms);
    ctx->set_materialize_grads(false);
    variable_list saved = {value_or_undefined(inputs)...};
    if (!requires_grad(a->mu) && !requires_grad(a->scale) && !requires_grad(a->beta_tensor)) {
      for (const Input i : {kMu, kScale, kKl}) saved[i] = unwatched(saved[i]);
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["beta"] = a->beta;
    ctx->saved_data["codes"] = std::vector<int64_t>{a->likelihood, a->scale_kind, a->reduction};
    for (int of = 0; of < kGradients; ++of) {
      if (wants(wanted, of)) ctx->saved_data[kBuffers[of]] = gradients[of];
    }
    return with_terms ? variable_list{loss, recon_term, kl_term} : variable_list{loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int kBefore = 2;  // of forward's arguments, those that are no inputs
    grads.resize(3);
    const std::vector<int64_t> codes = ctx->saved_data["codes"].toIntVector();
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<bool> wanted = wanted_gradients(ctx, saved);
    OptionalTensor given[kInputs];
    for (int i = 0; i < kInputs; ++i) given[i] = optional(saved[i]);
    const ElboArguments a{saved[kRecon],
                          saved[kTarget],
                          given[kWeight],
                          given[kPosWeight],
                          codes[0],
                          given[kParameter],
                          given[kSecondParameter],
                          given[kLibrary],
                          given[kMu],
                          given[kScale],
                          codes[1],
                          given[kKl],
                          given[kBeta],
                          ctx->saved_data["beta"].toDouble(),
                          codes[2]};
    variable_list out(kBefore + kInputs);
    const auto to = [&out](Input input) -> Tensor& { return out[kBefore + input]; };

    check("elbo", refuse(a));  // hooks may have unpacked anything
    if (at::GradMode::is_enabled() || has_tangent(grads) || wanted[kTarget] || wanted[kWeight] || wanted[kPosWeight] ||
        wanted[kBeta]) {
      const variable_list gradients = reference_gradient()({"elbo", saved, codes, {a.beta}, grads, wanted});
      std::copy(gradients.begin(), gradients.end(), out.begin() + kBefore);
      return out;
    }
    const Tensor upstream = plus(grads[0], grads[1]);
    const bool has_upstream = upstream.defined();
    int64_t to_make = 0;
    for (int of = 0; of < kGradients; ++of) {
      to_make |= int64_t(has_upstream && wanted[kGradientInputs[of]]) << of;
    }
    const bool to_kl = (wanted[kKl] || wanted[kMu] || wanted[kScale]) && (grads[0].defined() || grads[2].defined());
    const at::AutoDispatchBelowADInplaceOrView below;
    const OptionalTensor grad_loss = optional(grads[0]), grad_recon = optional(grads[1]), grad_kl = optional(grads[2]);
    const Device* const direct =
        is_plain(grad_loss) && is_plain(grad_recon) && is_plain(grad_kl) ? direct_device(a.recon, a) : nullptr;
    Tensor kl_gradient;  // [B], or one for all rows
    if (direct) {
      for (int of = 0; of < kGradients; ++of) {
        if (wants(to_make, of)) to(kGradientInputs[of]) = take_buffer(ctx, kBuffers[of]);
      }
      const bool apart = are_made_apart(a);
      make_missing(a, direct, upstream, apart, to_make, to);
      // On the CPU it can be seen here that the buffers are the gradients as they were written; CUDA's kernel finds out
      // itself.
      const bool done = !apart || (has_upstream && a.recon.is_cpu() && is_one(upstream));
      for (int of = kOfParameter; of < kGradients && !done; ++of) {
        Tensor& gradient = to(kGradientInputs[of]);
        if (gradient.defined()) gradient.mul_(upstream);
      }
      const OptionalTensor buffer = done ? std::nullopt : optional(to(kRecon));
      if (buffer || to_kl) {
        kl_gradient = run<&Device::elbo_backward_>("pyvae::elbo_backward_", direct, a, buffer, grad_loss, grad_recon,
                                                   grad_kl, to_kl);
      }
    } else {
      for (int of = 0; of < kGradients; ++of) {
        const auto entry = ctx->saved_data.find(kBuffers[of]);
        if (!wants(to_make, of) || entry == ctx->saved_data.end()) continue;
        const Tensor buffer = entry->second.toTensor();
        if (is_in_16_bits(buffer)) {  // recon's: those of parameters are not made apart
          static const auto op = find_operator<decltype(&elbo_backward)>("pyvae::elbo_backward");
          to(kRecon) = call(op, a, buffer, grad_loss, grad_recon);
        } else {
          to(kGradientInputs[of]) = scaled(buffer, upstream);
        }
      }
      make_missing(a, direct, upstream, /*apart=*/false, to_make, to);
      if (to_kl) kl_gradient = traced_kl_gradient(a, grads);
    }
    if (to_kl && wanted[kKl]) {
      to(kKl) = kl_gradient.dim() == 0 ? kl_gradient.expand_symint({a.recon.sym_size(0)}) : kl_gradient;
    } else if (to_kl) {
      const LatentArguments posterior{*a.mu, *a.scale, kAbsent, kAbsent, a.scale_kind, 0};
      std::tie(to(kMu), to(kScale), std::ignore, std::ignore) = run<&Device::latent_backward>(
          "pyvae::latent_backward", direct, posterior, kAbsent, OptionalTensor(kl_gradient), /*to_prior=*/false);
    }
    return out;
  }

  // Of the gradients `to_make` those that the forward pass has not made, or that were handed out before. If `apart`, as
  // it makes them, to the bit; else times upstream, [B] or scalar, before anything is rounded.
  template <class To>
  static void make_missing(const ElboArguments& a, const Device* device, const Tensor& upstream, bool apart,
                           int64_t to_make, const To& to) {
    for (int of = 0; of < kGradients; ++of) {
      if (to(kGradientInputs[of]).defined()) to_make &= ~(int64_t(1) << of);
    }
    if (to_make == 0) return;
    Tensor each = apart ? at::ones({}, upstream.options().dtype(at::kDouble)) : upstream;
    if (a.reduction == kBatchMean) each = each.div(batch_size(a.recon));
    const Gradients found = gradients(a, device, each.expand_symint({a.recon.sym_size(0)}), to_make);
    for (int of = 0; of < kGradients; ++of) {
      if (wants(to_make, of)) to(kGradientInputs[of]) = found[of];
    }
  }

  // elbo_backward_'s result in operators that a tracer can follow.
  static Tensor traced_kl_gradient(const ElboArguments& a, const variable_list& grads) {
    Tensor from_loss = grads[0];
    if (from_loss.defined() && a.beta_tensor) from_loss = from_loss * *a.beta_tensor;
    if (from_loss.defined() && a.beta != 1) from_loss = from_loss * a.beta;
    Tensor out = plus(from_loss, grads[2]);
    if (a.reduction == kBatchMean) out = out.div(batch_size(a.recon));
    return a.kl ? out.to(a.kl->scalar_type()) : out;
  }

  // The buffer, at most once, since a caller holds it from then on. Undefined where it is spent. Besides being dropped
  // here it is marked by its version, for a context that was copied before (compiled autograd does so).
  static Tensor take_buffer(AutogradContext* ctx, const char* name) {
    const auto entry = ctx->saved_data.find(name);
    if (entry == ctx->saved_data.end()) return Tensor();
    const Tensor buffer = entry->second.toTensor();
    ctx->saved_data.erase(entry);
    if (buffer._version() != 0) return Tensor();
    buffer.unsafeGetTensorImpl()->bump_version();
    return buffer;
  }

  static variable_list of(const ElboArguments& a, bool with_terms) {
    return apply(&a, with_terms, a.recon, a.target, a.mu, a.scale, a.kl, a.weight, a.pos_weight, a.beta_tensor,
                 a.parameter, a.second_parameter, a.log_library);
  }
};

// As the dispatcher calls it, with arguments of anyone's.
std::tuple<Tensor, Tensor, Tensor> checked_elbo(const ElboArguments& a) {
  check("elbo", refuse(a));
  const variable_list out = elbo(a, /*with_terms=*/true);
  return {out[0], out[1], out[2]};
}

}  // namespace

variable_list elbo(const ElboArguments& a, bool with_terms) {
  if (needs_gradient({&a.recon, &a.target}, {&a.mu, &a.scale, &a.kl, &a.weight, &a.pos_weight, &a.beta_tensor,
                                             &a.parameter, &a.second_parameter, &a.log_library})) {
    return Elbo::of(a, with_terms);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [loss, recon_term, kl_term, none] = forward(a, /*wanted=*/0, with_terms);
  return {loss, recon_term, kl_term};
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) {
  m.impl("elbo", flat<&checked_elbo>());
  m.impl("elbo_backward", flat<&elbo_backward>());
}
TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { m.impl("elbo", flat<&checked_elbo>()); }

}  // namespace pyvae
