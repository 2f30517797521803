// Decoder side, backward: hand out the gradient that the forward pass wrote, once; after that, compute it again.
#include <algorithm>

#include "ops/autograd.h"
#include "ops/checks.h"

namespace pyvae {

namespace {

auto call_elbo_forward(const Tensor& recon, const Tensor& target, const OptionalTensor& mu, const OptionalTensor& scale,
                       const OptionalTensor& kl, const OptionalTensor& weight, const OptionalTensor& pos_weight,
                       const OptionalTensor& beta_tensor, double beta, int64_t likelihood, int64_t scale_kind,
                       int64_t reduction, bool with_gradient) {
  static const auto op = find_operator<decltype(elbo_forward)>("pyvae::elbo_forward");
  return op.call(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood, scale_kind, reduction,
                 with_gradient);
}

// The sum of two gradients of which each may be absent (undefined).
Tensor plus(const Tensor& a, const Tensor& b) { return !a.defined() ? b : (b.defined() ? a + b : a); }

// buffer [B, ...] times upstream, [B] or scalar, for a tracer, which has to see a function.
Tensor scaled(const Tensor& buffer, const Tensor& upstream) {
  c10::SymDimVector sizes(upstream.dim() == 0 ? 0 : size_t(buffer.dim()), 1);
  if (!sizes.empty()) sizes[0] = buffer.sym_size(0);
  return (buffer * upstream.reshape_symint(sizes)).to(buffer.scalar_type());
}

struct Elbo : torch::autograd::Function<Elbo> {
  // The inputs as saved, in the order of the schema.
  enum Input { kRecon, kTarget, kMu, kScale, kKl, kWeight, kPosWeight, kBeta, kInputs };

  static variable_list forward(AutogradContext* ctx, const Tensor& recon, const Tensor& target,
                               const OptionalTensor& mu, const OptionalTensor& scale, const OptionalTensor& kl,
                               const OptionalTensor& weight, const OptionalTensor& pos_weight,
                               const OptionalTensor& beta_tensor, double beta, int64_t likelihood, int64_t scale_kind,
                               int64_t reduction) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const bool with_gradient = recon.requires_grad();
    auto [loss, recon_term, kl_term, gradient] =
        call_elbo_forward(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood, scale_kind,
                          reduction, with_gradient);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({recon, target, value_or_undefined(mu), value_or_undefined(scale), value_or_undefined(kl),
                            value_or_undefined(weight), value_or_undefined(pos_weight),
                            value_or_undefined(beta_tensor)});
    ctx->saved_data["beta"] = beta;
    ctx->saved_data["codes"] = std::vector<int64_t>{likelihood, scale_kind, reduction};
    if (with_gradient) ctx->saved_data["gradient"] = gradient;
    return {loss, recon_term, kl_term};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const std::vector<int64_t> codes = ctx->saved_data["codes"].toIntVector();
    const int64_t likelihood = codes[0], scale_kind = codes[1], reduction = codes[2];
    const double beta = ctx->saved_data["beta"].toDouble();
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<bool> wanted = wanted_gradients(ctx, saved);
    variable_list out(12);

    if (at::GradMode::is_enabled() || wanted[kTarget] || wanted[kWeight] || wanted[kPosWeight] || wanted[kBeta]) {
      const variable_list gradients = reference_gradient()({"elbo", saved, codes, beta, grads, wanted});
      std::copy(gradients.begin(), gradients.end(), out.begin());
      return out;
    }
    const Tensor& recon = saved[kRecon];
    const bool to_recon = wanted[kRecon] && (grads[0].defined() || grads[1].defined());
    const bool to_kl = (wanted[kKl] || wanted[kMu] || wanted[kScale]) && (grads[0].defined() || grads[2].defined());
    Tensor kl_gradient;  // [B]
    const bool plain = is_plain(recon) && std::all_of(grads.begin(), grads.end(),
                                                      [](const Tensor& g) { return !g.defined() || is_plain(g); });
    if (plain) {
      const at::AutoDispatchBelowADInplaceOrView below;
      if (to_recon) out[kRecon] = take_buffer(ctx);
      // On the CPU it can be seen here that the buffer is the gradient as it was written; CUDA's kernel finds out
      // itself.
      const bool done = out[kRecon].defined() && recon.is_cpu() && is_one(plus(grads[0], grads[1]));
      const Tensor buffer = done ? Tensor() : out[kRecon];
      if (buffer.defined() || to_kl) {
        const OptionalTensor mu = optional(saved[kMu]), scale = optional(saved[kScale]), kl = optional(saved[kKl]);
        static const auto op = find_operator<decltype(elbo_backward)>("pyvae::elbo_backward");
        kl_gradient =
            op.call(optional(buffer), recon, saved[kTarget], optional(saved[kWeight]), optional(saved[kPosWeight]),
                    optional(grads[0]), optional(grads[1]), optional(grads[2]), optional(saved[kBeta]), beta,
                    likelihood, reduction, to_kl ? std::optional(kl_type(mu, scale, kl, at::kFloat)) : std::nullopt);
      }
    } else {
      const auto entry = ctx->saved_data.find("gradient");
      if (to_recon && entry != ctx->saved_data.end()) {
        out[kRecon] = scaled(entry->second.toTensor(), plus(grads[0], grads[1]));
      }
      if (to_kl) {  // loss = recon_term + beta kl_term, kl_term = sum or mean of the rows' KL
        kl_gradient = grads[0];
        if (kl_gradient.defined() && saved[kBeta].defined()) kl_gradient = kl_gradient * saved[kBeta];
        if (kl_gradient.defined() && beta != 1) kl_gradient = kl_gradient * beta;
        kl_gradient = plus(kl_gradient, grads[2]);
        if (reduction == kBatchMean) kl_gradient = kl_gradient.div(batch_size(recon));
        kl_gradient = kl_gradient.expand_symint({recon.sym_size(0)});
        if (wanted[kKl]) kl_gradient = kl_gradient.to(saved[kKl].scalar_type());
      }
    }
    if (to_recon && !out[kRecon].defined()) {
      const Tensor upstream = plus(grads[0], grads[1]);
      const Tensor each = reduction == kBatchMean ? upstream.div(batch_size(recon)) : upstream;
      static const auto op = find_operator<decltype(elbo_gradient)>("pyvae::elbo_gradient");
      out[kRecon] = op.call(recon, saved[kTarget], optional(saved[kWeight]), optional(saved[kPosWeight]),
                            each.expand_symint({recon.sym_size(0)}), likelihood);
    }
    if (to_kl && wanted[kKl]) {
      out[kKl] = kl_gradient;
    } else if (to_kl) {
      static const auto op = find_operator<decltype(latent_backward)>("pyvae::latent_backward");
      std::tie(out[kMu], out[kScale]) = op.call(std::nullopt, kl_gradient, saved[kMu], saved[kScale], std::nullopt,
                                                std::nullopt, scale_kind, c10::SymInt(0));
    }
    return out;
  }

  // The buffer, at most once, since a caller holds it from then on. Undefined where it is spent. Besides being dropped
  // here it is marked by its version, for a context that was copied before (compiled autograd does so).
  static Tensor take_buffer(AutogradContext* ctx) {
    const auto entry = ctx->saved_data.find("gradient");
    if (entry == ctx->saved_data.end()) return Tensor();
    const Tensor buffer = entry->second.toTensor();
    ctx->saved_data.erase(entry);
    if (buffer._version() != 0) return Tensor();
    buffer.unsafeGetTensorImpl()->bump_version();
    return buffer;
  }
};

std::tuple<Tensor, Tensor, Tensor> elbo_below_autograd(const Tensor& recon, const Tensor& target,
                                                       const OptionalTensor& mu, const OptionalTensor& scale,
                                                       const OptionalTensor& kl, const OptionalTensor& weight,
                                                       const OptionalTensor& pos_weight,
                                                       const OptionalTensor& beta_tensor, double beta,
                                                       int64_t likelihood, int64_t scale_kind, int64_t reduction) {
  auto [loss, recon_term, kl_term, none] = call_elbo_forward(
      recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood, scale_kind, reduction, false);
  return {loss, recon_term, kl_term};
}

std::tuple<Tensor, Tensor, Tensor> elbo_autograd(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                                                 const OptionalTensor& scale, const OptionalTensor& kl,
                                                 const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                                 const OptionalTensor& beta_tensor, double beta, int64_t likelihood,
                                                 int64_t scale_kind, int64_t reduction) {
  if (!needs_gradient({&recon, &target}, {&mu, &scale, &kl, &weight, &pos_weight, &beta_tensor})) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return elbo_below_autograd(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood,
                               scale_kind, reduction);
  }
  const auto out = Elbo::apply(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood,
                               scale_kind, reduction);
  return {out[0], out[1], out[2]};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> elbo(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                                        const OptionalTensor& scale, const OptionalTensor& kl,
                                        const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                        const OptionalTensor& beta_tensor, double beta, int64_t likelihood,
                                        int64_t scale_kind, int64_t reduction) {
  static const auto op = find_operator<decltype(elbo)>("pyvae::elbo");
  return op.call(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, beta, likelihood, scale_kind,
                 reduction);
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) { m.impl("elbo", elbo_below_autograd); }

TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { m.impl("elbo", elbo_autograd); }

}  // namespace pyvae
