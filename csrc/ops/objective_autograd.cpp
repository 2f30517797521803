// Decoder side, backward: hand out the gradient that the forward pass wrote, once; after that, compute it again.
#include "ops/autograd.h"

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

bool is_one(const Tensor& scalar) {
  return scalar.dim() == 0 && (scalar.scalar_type() == at::kFloat ? *scalar.const_data_ptr<float>() == 1.0f
                                                                  : *scalar.const_data_ptr<double>() == 1.0);
}

// buffer [B, ...] times upstream, [B] or scalar. In place only where nobody looks on: a tracer has to see a function.
Tensor scaled(const Tensor& buffer, const Tensor& upstream, bool in_place) {
  c10::SymDimVector sizes(upstream.dim() == 0 ? 0 : size_t(buffer.dim()), 1);
  if (!sizes.empty()) sizes[0] = buffer.sym_size(0);
  const Tensor factor = upstream.reshape_symint(sizes);
  return in_place ? buffer.mul_(factor) : (buffer * factor).to(buffer.scalar_type());
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
    const Tensor to_recon = plus(grads[0], grads[1]);
    if (wanted[kRecon] && to_recon.defined()) {
      out[kRecon] = take_buffer(ctx, recon, to_recon);
      if (!out[kRecon].defined()) {
        const Tensor each = reduction == kBatchMean ? to_recon.div(batch_size(recon)) : to_recon;
        static const auto op = find_operator<decltype(elbo_gradient)>("pyvae::elbo_gradient");
        out[kRecon] = op.call(recon, saved[kTarget], optional(saved[kWeight]), optional(saved[kPosWeight]),
                              each.expand_symint({recon.sym_size(0)}), likelihood);
      }
    }
    if (wanted[kKl] || wanted[kMu] || wanted[kScale]) {
      // loss = recon_term + beta kl_term, kl_term = sum or mean of the rows' KL
      Tensor to_kl = grads[0];
      if (to_kl.defined() && saved[kBeta].defined()) to_kl = to_kl * saved[kBeta];
      if (to_kl.defined() && beta != 1) to_kl = to_kl * beta;
      to_kl = plus(to_kl, grads[2]);
      if (!to_kl.defined()) return out;
      if (reduction == kBatchMean) to_kl = to_kl.div(batch_size(recon));
      to_kl = to_kl.expand_symint({recon.sym_size(0)});
      if (wanted[kKl]) {
        out[kKl] = to_kl.to(saved[kKl].scalar_type());
      } else {
        static const auto op = find_operator<decltype(latent_backward)>("pyvae::latent_backward");
        std::tie(out[kMu], out[kScale]) = op.call(std::nullopt, to_kl, saved[kMu], saved[kScale], std::nullopt,
                                                  std::nullopt, scale_kind, c10::SymInt(0));
      }
    }
    return out;
  }

  // The buffer, scaled: at most once, since a caller holds it from then on. Undefined where it is spent. Besides being
  // dropped here it is marked by its version, for a context that was copied before (compiled autograd does so).
  static Tensor take_buffer(AutogradContext* ctx, const Tensor& recon, const Tensor& upstream) {
    const auto entry = ctx->saved_data.find("gradient");
    if (entry == ctx->saved_data.end()) return Tensor();
    const Tensor buffer = entry->second.toTensor();
    const bool plain = is_plain(buffer) && is_plain(upstream);
    if (plain) {
      ctx->saved_data.erase(entry);
      if (buffer._version() != 0) return Tensor();
      buffer.unsafeGetTensorImpl()->bump_version();
      if (is_one(upstream)) return buffer;
      // 16-bit values were rounded before the factor came (a loss scale, say): computing again loses nothing.
      if (at::elementSize(recon.scalar_type()) == 2) return Tensor();
    }
    return scaled(buffer, upstream, plain);
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
