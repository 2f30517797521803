// Decoder side: validate, allocate, run. The forward pass already writes the gradient; objective_autograd.cpp hands it
// out.
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <atomic>

#include "ops/autograd.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

bool is_flattened_form(const Tensor& flat, const Tensor& full) {
  return flat.dim() == 2 && full.dim() >= 1 && flat.sym_size(0) == full.sym_size(0) &&
         flat.sym_numel() == full.sym_numel();
}

// A factor on recon's elements: weight or pos_weight.
const char* refuse_factor(const OptionalTensor& factor, const Tensor& recon) {
  if (!factor) return nullptr;
  if (!is_supported_type(factor->scalar_type()) && factor->scalar_type() != at::kBool)
    return "weights must be floating or bool";
  if (factor->device() != recon.device() && factor->dim() != 0) return "weights must be on recon's device";
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
  if (pos_weight && !kTakesPosWeight[likelihood]) return "pos_weight needs bernoulli_logits";
  if (const char* refusal = refuse_factor(weight, recon)) return refusal;
  return refuse_factor(pos_weight, recon);
}

namespace {

// The type of the KL term; without one it is 0, in the type of the reconstruction term.
at::ScalarType kl_type(const OptionalTensor& mu, const OptionalTensor& scale, const OptionalTensor& kl,
                       at::ScalarType otherwise) {
  if (kl) return kl->scalar_type();
  return mu ? compute_type(mu->scalar_type(), scale->scalar_type()) : otherwise;
}

// One call of the kernel: `sums` and `upstream` may be null, `gradient` undefined.
struct Pass {
  const Tensor& recon;
  const Tensor& target;
  const OptionalTensor& weight;
  const OptionalTensor& pos_weight;
  int64_t likelihood;
  double factor = 1;
  const double* upstream = nullptr;

  Tensor recon_, target_, weight_, pos_weight_, gradient;
  cpu::Objective call{};

  // The operands in recon's shape, within the kernels' number of dimensions.
  void lay_out(bool with_gradient) {
    const auto spread = [&](const OptionalTensor& t) { return t ? within_dims(t->expand(recon.sizes())) : Tensor(); };
    recon_ = within_dims(recon);
    target_ = within_dims(target.sizes() == recon.sizes() ? target : target.reshape(recon.sizes()));
    weight_ = spread(weight);
    pos_weight_ = spread(pos_weight);
    if (with_gradient) gradient = empty_output(recon_, recon_.scalar_type());
    call.shape = pyvae::lay_out({{&recon_, &call.recon},
                                 {&target_, &call.target},
                                 {&weight_, &call.weight},
                                 {&pos_weight_, &call.pos_weight},
                                 {&gradient, &call.gradient}},
                                /*any_order=*/true);
    call.likelihood = int(likelihood);
    call.factor = factor;
    call.upstream = upstream;
  }

  void run(double* sums) {
    call.sums = sums;
    if (recon.numel() == 0) return;
    const cpu::Table& table = *cpu::table();
    const bool in_double = compute_type(recon.scalar_type(), target.scalar_type()) == at::kDouble;
    const auto kernel = in_double ? table.in_double.objective : table.in_float.objective;
    std::atomic<bool> legal{true};
    at::parallel_for(0, cpu::Partition(call.shape).chunks, kObjectiveGrain, [&](int64_t begin, int64_t end) {
      if (!kernel(call, begin, end)) legal = false;
    });
    TORCH_CHECK_VALUE(legal, "`recon` must hold probabilities in [0, 1] for likelihood='", kLikelihoodNames[likelihood],
                      "', but holds values outside; for logits use likelihood='bernoulli_logits'");
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_forward_cpu(const Tensor& recon, const Tensor& target,
                                                            const OptionalTensor& mu, const OptionalTensor& scale,
                                                            const OptionalTensor& kl, const OptionalTensor& weight,
                                                            const OptionalTensor& pos_weight,
                                                            const OptionalTensor& beta_tensor, double beta,
                                                            int64_t likelihood, int64_t scale_kind, int64_t reduction,
                                                            bool with_gradient) {
  const char* refusal = refuse_objective(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood,
                                         scale_kind, reduction);
  TORCH_CHECK_VALUE(!refusal, "pyvae::elbo: ", refusal);
  const int64_t rows = recon.size(0);

  Pass pass{recon, target, weight, pos_weight, likelihood};
  pass.factor = reduction == kBatchMean ? 1.0 / double(rows) : 1.0;
  pass.lay_out(with_gradient);
  Doubles partials(cpu::Partition(pass.call.shape).partials(), 0.0);
  pass.run(partials.data());
  const Doubles recon_term = reduce_rows(pass.call.shape, partials.data(), reduction);

  Doubles kl_term(recon_term.size(), 0.0);
  if (mu) {
    static const auto op = find_operator<decltype(latent_forward)>("pyvae::latent_forward");
    kl_term = read_doubles(
        std::get<1>(op.call(*mu, *scale, std::nullopt, std::nullopt, scale_kind, 0, false, true, reduction)));
  } else if (kl) {
    cpu::Shape one_each{};
    one_each.rows = rows, one_each.features = 1;
    kl_term = reduce_rows(one_each, read_doubles(*kl).data(), reduction);
  }

  if (beta_tensor) beta *= beta_tensor->item<double>();
  const int64_t count = int64_t(kl_term.size());
  Doubles loss(count);
  for (int64_t i = 0; i < count; ++i) loss[i] = recon_term[i] + beta * kl_term[i];
  const at::ScalarType recon_type = compute_type(recon.scalar_type(), target.scalar_type());
  const at::ScalarType term_type = kl_type(mu, scale, kl, recon_type);
  const bool scalar = reduction != kNone;
  return {to_tensor(loss.data(), count, scalar, at::promote_types(recon_type, term_type)),
          to_tensor(recon_term.data(), count, scalar, recon_type), to_tensor(kl_term.data(), count, scalar, term_type),
          with_gradient ? pass.gradient : at::empty({0}, recon.options())};
}

Tensor elbo_gradient_cpu(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                         const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood) {
  const char* refusal = refuse_objective(recon, target, std::nullopt, std::nullopt, std::nullopt, weight, pos_weight,
                                         std::nullopt, likelihood, 0, kNone);
  TORCH_CHECK_VALUE(!refusal, "pyvae::elbo_gradient: ", refusal);
  TORCH_CHECK_VALUE(upstream.dim() == 1 && upstream.numel() == recon.size(0),
                    "pyvae::elbo_gradient: upstream must have shape (B,)");
  const Doubles rows = read_doubles(upstream);
  Pass pass{recon, target, weight, pos_weight, likelihood};
  pass.upstream = rows.data();
  pass.lay_out(/*with_gradient=*/true);
  pass.run(nullptr);
  return pass.gradient;
}

// ---- shapes without data
// ----------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_forward_meta(const Tensor& recon, const Tensor& target,
                                                             const OptionalTensor& mu, const OptionalTensor& scale,
                                                             const OptionalTensor& kl, const OptionalTensor& weight,
                                                             const OptionalTensor& pos_weight,
                                                             const OptionalTensor& beta_tensor, double,
                                                             int64_t likelihood, int64_t scale_kind, int64_t reduction,
                                                             bool with_gradient) {
  const char* refusal = refuse_objective(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood,
                                         scale_kind, reduction);
  TORCH_CHECK_VALUE(!refusal, "pyvae::elbo: ", refusal);
  const at::ScalarType recon_type = compute_type(recon.scalar_type(), target.scalar_type());
  const at::ScalarType term_type = kl_type(mu, scale, kl, recon_type);
  const auto reduced = [&](at::ScalarType type) {
    const auto options = recon.options().dtype(type);
    return reduction == kNone ? at::empty_symint({recon.sym_size(0)}, options) : at::empty({}, options);
  };
  return {reduced(at::promote_types(recon_type, term_type)), reduced(recon_type), reduced(term_type),
          with_gradient ? at::empty_like(recon) : at::empty({0}, recon.options())};
}

Tensor elbo_gradient_meta(const Tensor& recon, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                          const Tensor&, int64_t) {
  return at::empty_like(recon);
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, CPU, m) {
  m.impl("elbo_forward", elbo_forward_cpu);
  m.impl("elbo_gradient", elbo_gradient_cpu);
}

TORCH_LIBRARY_IMPL(pyvae, Meta, m) {
  m.impl("elbo_forward", elbo_forward_meta);
  m.impl("elbo_gradient", elbo_gradient_meta);
}

}  // namespace pyvae
