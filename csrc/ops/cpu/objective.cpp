// Decoder side on the CPU: allocate and run. The forward pass already writes the gradient.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <atomic>

#include "ops/autograd.h"
#include "ops/checks.h"
#include "ops/cpu/numbers.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

// One call of the kernel: `sums` and `upstream` may be null, `gradient` undefined.
struct Pass {
  const Tensor& recon;
  const Tensor& target;
  const OptionalTensor& weight;
  const OptionalTensor& pos_weight;
  int64_t likelihood;
  double factor = 1;
  const double* upstream = nullptr;  // [rows]

  Tensor recon_, target_, weight_, pos_weight_, gradient;
  cpu::Objective call{};

  // The operands in recon's shape, within the kernels' number of dimensions.
  void lay_out(bool with_gradient) {
    const auto spread = [&](const OptionalTensor& t) { return t ? within_dims(t->expand(recon.sizes())) : Tensor(); };
    recon_ = within_dims(recon);
    target_ = within_dims(target.sizes() == recon.sizes() ? target : target.reshape(recon.sizes()));
    weight_ = spread(weight);
    pos_weight_ = spread(pos_weight);
    if (with_gradient && !gradient.defined()) gradient = empty_output(recon_, recon_.scalar_type());
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
  check_elbo(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood, scale_kind, reduction);
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
    Shape one_each{};
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
  return {to_tensor(loss.data(), count, scalar, c10::promoteTypes(recon_type, term_type)),
          to_tensor(recon_term.data(), count, scalar, recon_type), to_tensor(kl_term.data(), count, scalar, term_type),
          with_gradient ? pass.gradient : at::empty({0}, recon.options())};
}

Tensor elbo_gradient_cpu(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                         const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood) {
  check_elbo_gradient(recon, target, weight, pos_weight, upstream, likelihood);
  const Doubles rows = read_doubles(upstream);
  Pass pass{recon, target, weight, pos_weight, likelihood};
  pass.upstream = rows.data();
  pass.lay_out(/*with_gradient=*/true);
  pass.run(nullptr);
  return pass.gradient;
}

Tensor elbo_backward_cpu(const OptionalTensor& gradient, const Tensor& recon, const Tensor& target,
                         const OptionalTensor& weight, const OptionalTensor& pos_weight,
                         const OptionalTensor& grad_loss, const OptionalTensor& grad_recon,
                         const OptionalTensor& grad_kl, const OptionalTensor& beta_tensor, double beta,
                         int64_t likelihood, int64_t reduction, std::optional<at::ScalarType> kl_type) {
  const int64_t batch = recon.size(0);
  const double mean = reduction == kBatchMean ? 1.0 / double(batch) : 1.0;
  if (gradient) {
    const Tensor upstream = grad_loss && grad_recon ? *grad_loss + *grad_recon : grad_loss ? *grad_loss : *grad_recon;
    if (is_one(upstream)) {
      // as the forward pass wrote it
    } else if (at::elementSize(recon.scalar_type()) == 2) {
      // 16-bit values were rounded before the factor came (a loss scale, say): computing again loses nothing.
      const Doubles rows = read_doubles(upstream.expand({batch}));
      Pass pass{recon, target, weight, pos_weight, likelihood, mean, rows.data()};
      pass.gradient = *gradient;
      pass.lay_out(/*with_gradient=*/true);
      pass.run(nullptr);
    } else {
      c10::DimVector sizes(upstream.dim() == 0 ? 0 : size_t(recon.dim()), 1);
      if (!sizes.empty()) sizes[0] = batch;
      gradient->mul_(upstream.reshape(sizes));
    }
  }
  if (!kl_type) return at::empty({0});
  // loss = recon_term + beta kl_term, kl_term = sum or mean of the rows' KL
  if (beta_tensor) beta *= beta_tensor->item<double>();
  const Doubles from_loss = grad_loss ? read_doubles(*grad_loss) : Doubles();
  Doubles out = grad_kl ? read_doubles(*grad_kl) : Doubles(from_loss.size(), 0.0);
  for (size_t i = 0; i < out.size(); ++i) out[i] = mean * (out[i] + (grad_loss ? beta * from_loss[i] : 0));
  return to_tensor(out.data(), int64_t(out.size()), reduction != kNone, *kl_type).expand({batch});
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, CPU, m) {
  m.impl("elbo_forward", elbo_forward_cpu);
  m.impl("elbo_gradient", elbo_gradient_cpu);
  m.impl("elbo_backward", elbo_backward_cpu);
}

}  // namespace pyvae
