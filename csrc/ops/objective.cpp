// Decoder side: what is legal, and the shapes of results.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <torch/library.h>

#include "ops/checks.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

bool is_flattened_form(const Tensor& flat, const Tensor& full) {
  return flat.dim() == 2 && full.dim() >= 1 && flat.sym_size(0) == full.sym_size(0) &&
         flat.sym_numel() == full.sym_numel();
}

// On recon's device, or a number on the CPU, which goes with any device.
bool is_at_hand(const Tensor& factor, const Tensor& recon) {
  return factor.device() == recon.device() || (factor.dim() == 0 && factor.is_cpu());
}

// A factor on recon's elements: weight or pos_weight.
const char* refuse_factor(const OptionalTensor& factor, const Tensor& recon) {
  if (!factor) return nullptr;
  if (!is_supported_type(factor->scalar_type()) && factor->scalar_type() != at::kBool)
    return "weights must be floating or bool";
  if (!is_at_hand(*factor, recon)) return "weights must be on recon's device";
  if (!at::is_expandable_to(factor->sym_sizes(), recon.sym_sizes())) return "weights must be broadcastable to recon";
  return nullptr;
}

}  // namespace

const char* refuse_objective(const Tensor& recon, const Tensor& target, const OptionalTensor& mu,
                             const OptionalTensor& scale, const OptionalTensor& kl, const OptionalTensor& weight,
                             const OptionalTensor& pos_weight, const OptionalTensor& beta_tensor, int64_t likelihood,
                             int64_t scale_kind, int64_t reduction) {
  if (!is_supported_type(recon.scalar_type()) || !is_supported_type(target.scalar_type()))
    return "recon and target must be floating";
  if (recon.dim() == 0) return "recon must have a batch dimension";
  if (recon.device() != target.device()) return "recon and target must be on one device";
  if (recon.sym_sizes() != target.sym_sizes() && !is_flattened_form(recon, target) &&
      !is_flattened_form(target, recon)) {
    return "recon and target must have one shape, or one of them be the flattened form";
  }
  if (likelihood < 0 || likelihood >= kLikelihoods) return "unknown likelihood";
  if (reduction < 0 || reduction >= kReductions) return "unknown reduction";
  if (mu.has_value() != scale.has_value()) return "mu and scale go together";
  if (mu && kl) return "either mu and scale or kl";
  if (mu) {
    if (const char* refusal = refuse_latent(*mu, *scale, std::nullopt, std::nullopt, scale_kind)) return refusal;
    if (mu->sym_size(0) != recon.sym_size(0)) return "mu must have recon's batch size";
    if (mu->device() != recon.device()) return "mu must be on recon's device";
  }
  if (kl) {
    if (kl->scalar_type() != at::kFloat && kl->scalar_type() != at::kDouble) return "kl must be float32 or float64";
    if (kl->dim() != 1 || kl->sym_size(0) != recon.sym_size(0)) return "kl must have shape (B,)";
    if (kl->device() != recon.device()) return "kl must be on recon's device";
  }
  if (beta_tensor && (beta_tensor->dim() != 0 || !is_supported_type(beta_tensor->scalar_type())))
    return "beta must be a scalar";
  if (beta_tensor && !is_at_hand(*beta_tensor, recon)) return "beta must be on recon's device";
  if (pos_weight && !kTakesPosWeight[likelihood]) return "pos_weight needs bernoulli_logits";
  if (const char* refusal = refuse_factor(weight, recon)) return refusal;
  return refuse_factor(pos_weight, recon);
}

void check_elbo(const Tensor& recon, const Tensor& target, const OptionalTensor& mu, const OptionalTensor& scale,
                const OptionalTensor& kl, const OptionalTensor& weight, const OptionalTensor& pos_weight,
                const OptionalTensor& beta_tensor, int64_t likelihood, int64_t scale_kind, int64_t reduction) {
  const char* refusal = refuse_objective(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood,
                                         scale_kind, reduction);
  TORCH_CHECK_VALUE(!refusal, "pyvae::elbo: ", refusal);
}

void check_elbo_gradient(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                         const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood) {
  const char* refusal = refuse_objective(recon, target, std::nullopt, std::nullopt, std::nullopt, weight, pos_weight,
                                         std::nullopt, likelihood, 0, kNone);
  TORCH_CHECK_VALUE(!refusal, "pyvae::elbo_gradient: ", refusal);
  TORCH_CHECK_VALUE(upstream.dim() == 1 && upstream.numel() == recon.size(0),
                    "pyvae::elbo_gradient: upstream must have shape (B,)");
}

at::ScalarType kl_type(const OptionalTensor& mu, const OptionalTensor& scale, const OptionalTensor& kl,
                       at::ScalarType otherwise) {
  if (kl) return kl->scalar_type();
  return mu ? compute_type(mu->scalar_type(), scale->scalar_type()) : otherwise;
}

namespace {

// ---- shapes without data

std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_forward_meta(const Tensor& recon, const Tensor& target,
                                                             const OptionalTensor& mu, const OptionalTensor& scale,
                                                             const OptionalTensor& kl, const OptionalTensor& weight,
                                                             const OptionalTensor& pos_weight,
                                                             const OptionalTensor& beta_tensor, double,
                                                             int64_t likelihood, int64_t scale_kind, int64_t reduction,
                                                             bool with_gradient) {
  check_elbo(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood, scale_kind, reduction);
  const at::ScalarType recon_type = compute_type(recon.scalar_type(), target.scalar_type());
  const at::ScalarType term_type = kl_type(mu, scale, kl, recon_type);
  const auto reduced = [&](at::ScalarType type) {
    const auto options = recon.options().dtype(type);
    return reduction == kNone ? at::empty_symint({recon.sym_size(0)}, options) : at::empty({}, options);
  };
  return {reduced(c10::promoteTypes(recon_type, term_type)), reduced(recon_type), reduced(term_type),
          with_gradient ? at::empty_like(recon) : at::empty({0}, recon.options())};
}

Tensor elbo_gradient_meta(const Tensor& recon, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                          const Tensor&, int64_t) {
  return at::empty_like(recon);
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, Meta, m) {
  m.impl("elbo_forward", elbo_forward_meta);
  m.impl("elbo_gradient", elbo_gradient_meta);
}

}  // namespace pyvae
