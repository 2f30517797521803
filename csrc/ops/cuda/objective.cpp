// Decoder side on CUDA: allocate and launch, one kernel each way.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/cuda/tensors.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

using cuda::Partition;

// A number that is there without waiting for the device.
bool is_number(const OptionalTensor& factor) { return factor && factor->dim() == 0 && factor->is_cpu(); }

// The tensors behind a kernel's operands, in recon's shape and within the kernels' number of dimensions.
struct Inputs {
  Tensor recon, target, weight, pos_weight;
  double weight_value, pos_weight_value;

  Inputs(const Tensor& recon_in, const Tensor& target_in, const OptionalTensor& weight_in,
         const OptionalTensor& pos_weight_in)
      : weight_value(value(weight_in)), pos_weight_value(value(pos_weight_in)) {
    const auto sizes = recon_in.sizes();
    const auto spread = [&](const OptionalTensor& t) {
      return t && !is_number(t) ? within_dims(t->expand(sizes)) : Tensor();
    };
    recon = within_dims(recon_in);
    target = within_dims(target_in.sizes() == sizes ? target_in : target_in.reshape(sizes));
    weight = spread(weight_in);
    pos_weight = spread(pos_weight_in);
  }

  void lay_out(const Tensor& gradient, cuda::Objective& a) const {
    a.shape = pyvae::lay_out({{&recon, &a.recon},
                              {&target, &a.target},
                              {&weight, &a.weight},
                              {&pos_weight, &a.pos_weight},
                              {&gradient, &a.gradient}},
                             /*any_order=*/true);
    a.in_double = compute_type(recon.scalar_type(), target.scalar_type()) == at::kDouble;
    a.weight_value = weight_value;
    a.pos_weight_value = pos_weight_value;
  }

 private:
  static double value(const OptionalTensor& factor) { return is_number(factor) ? factor->item<double>() : 1; }
};

// beta * beta_tensor: a number where it can be read without waiting for the device.
struct Beta {
  double number;
  Tensor tensor;

  Beta(double beta, const OptionalTensor& beta_tensor) : number(beta) {
    if (!beta_tensor) return;
    if (is_number(beta_tensor)) {
      number *= beta_tensor->item<double>();
    } else {
      tensor = cuda::as_real(beta_tensor);
    }
  }

  void set(cuda::Objective& a) const {
    a.beta = number;
    a.beta_tensor = cuda::per_row(tensor);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> elbo_forward_cuda(const Tensor& recon, const Tensor& target,
                                                             const OptionalTensor& mu, const OptionalTensor& scale,
                                                             const OptionalTensor& kl, const OptionalTensor& weight,
                                                             const OptionalTensor& pos_weight,
                                                             const OptionalTensor& beta_tensor, double beta,
                                                             int64_t likelihood, int64_t scale_kind, int64_t reduction,
                                                             bool with_gradient) {
  check_elbo(recon, target, mu, scale, kl, weight, pos_weight, beta_tensor, likelihood, scale_kind, reduction);
  cuda::Call call("elbo_forward", recon);
  const Inputs in(recon, target, weight, pos_weight);
  const at::ScalarType recon_type = compute_type(recon.scalar_type(), target.scalar_type());
  const at::ScalarType term_type = kl_type(mu, scale, kl, recon_type);
  const Tensor loss = cuda::empty_result(recon, reduction, c10::promoteTypes(recon_type, term_type));
  const Tensor recon_term = cuda::empty_result(recon, reduction, recon_type);
  const Tensor kl_term = cuda::empty_result(recon, reduction, term_type);
  const Tensor gradient = with_gradient ? at::empty_like(in.recon) : Tensor();

  cuda::Objective a{};
  in.lay_out(gradient, a);
  const bool by_row = reduction == kNone && recon.size(0) > 1;
  a.partition = by_row ? Partition(a.shape.rows, a.shape.features) : Partition(1, recon.numel());
  a.mean = reduction == kBatchMean ? 1.0 / double(recon.size(0)) : 1.0;
  a.factor = a.mean;
  a.likelihood = int(likelihood);
  const Beta factor(beta, beta_tensor);
  factor.set(a);
  a.loss = cuda::result(loss), a.recon_term = cuda::result(recon_term), a.kl_term = cuda::result(kl_term);

  // The KL: a second segment of the launch; per row, or where it needs the other precision, a launch of its own.
  cuda::Posterior& p = a.posterior;
  Tensor rows = kl.value_or(Tensor()), mean_, scale_;
  const bool same_precision = mu && (term_type == at::kDouble) == a.in_double;
  if (mu && (by_row || !same_precision)) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("pyvae::latent_forward", "").typed<decltype(latent_forward)>();
    rows = std::get<1>(op.call(*mu, *scale, std::nullopt, std::nullopt, scale_kind, 0, false, true, kNone));
  } else if (mu) {
    mean_ = within_dims(*mu), scale_ = within_dims(*scale);
    p.source = cuda::Divergence::kPosterior;
    p.shape = lay_out({{&mean_, &p.mu}, {&scale_, &p.scale}}, /*any_order=*/true);
    p.partition = Partition(1, mu->numel());
    p.scale_kind = int(scale_kind);
  }
  if (rows.defined()) {
    p.source = cuda::Divergence::kGiven;
    p.given = cuda::per_row(rows);
    if (!by_row) p.partition = Partition(1, rows.numel());
  }

  const int64_t blocks = a.partition.blocks + p.partition.blocks;
  if (!by_row || a.partition.parts > 1) a.workspace = call.workspace(blocks);
  if (blocks > 0) call.launch(a);
  return {loss, recon_term, kl_term, with_gradient ? gradient : at::empty({0}, recon.options())};
}

Tensor elbo_gradient_cuda(const Tensor& recon, const Tensor& target, const OptionalTensor& weight,
                          const OptionalTensor& pos_weight, const Tensor& upstream, int64_t likelihood) {
  check_elbo_gradient(recon, target, weight, pos_weight, upstream, likelihood);
  cuda::Call call("elbo_gradient", recon);
  const Inputs in(recon, target, weight, pos_weight);
  const Tensor gradient = at::empty_like(in.recon), per_row = cuda::as_real(upstream);
  if (recon.numel() == 0) return gradient;
  cuda::ObjectiveBackward a{};
  in.lay_out(gradient, a.objective);
  a.objective.partition = Partition(1, recon.numel());
  a.objective.likelihood = int(likelihood);
  a.grad_loss = cuda::per_row(per_row);
  call.launch(a);
  return gradient;
}

Tensor elbo_backward_cuda(const OptionalTensor& gradient, const Tensor& recon, const Tensor& target,
                          const OptionalTensor& weight, const OptionalTensor& pos_weight,
                          const OptionalTensor& grad_loss, const OptionalTensor& grad_recon,
                          const OptionalTensor& grad_kl, const OptionalTensor& beta_tensor, double beta,
                          int64_t likelihood, int64_t reduction, std::optional<at::ScalarType> kl_type) {
  cuda::Call call("elbo_backward", recon);
  const Tensor to_kl = kl_type ? cuda::empty_result(recon, reduction, *kl_type) : at::empty({0}, recon.options());
  cuda::ObjectiveBackward a{};
  const Inputs in(recon, target, weight, pos_weight);
  const Beta factor(beta, beta_tensor);
  // 16-bit values were rounded before the factor came (a loss scale, say): computing again loses nothing.
  a.rescale = at::elementSize(recon.scalar_type()) > 2;
  a.done_if_one = true;
  if (gradient && gradient->numel() > 0) {
    if (a.rescale) {
      a.objective.shape = lay_out({{&*gradient, &a.objective.gradient}}, /*any_order=*/true);
      a.objective.in_double = gradient->scalar_type() == at::kDouble;
    } else {
      in.lay_out(*gradient, a.objective);
    }
    a.objective.partition = Partition(1, recon.numel());
  }
  a.objective.likelihood = int(likelihood);
  a.objective.mean = a.objective.factor = reduction == kBatchMean ? 1.0 / double(recon.size(0)) : 1.0;
  factor.set(a.objective);
  const Tensor from_loss = cuda::as_real(grad_loss), from_recon = cuda::as_real(grad_recon);
  const Tensor from_kl = cuda::as_real(grad_kl);
  a.grad_loss = cuda::per_row(from_loss), a.grad_recon = cuda::per_row(from_recon), a.grad_kl = cuda::per_row(from_kl);
  if (kl_type) a.to_kl = cuda::result(to_kl);
  a.batch = to_kl.numel();
  if (a.batch > 0 || a.objective.partition.blocks > 0) call.launch(a);
  return kl_type ? to_kl.expand({recon.size(0)}) : to_kl;
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) {
  m.impl("elbo_forward", elbo_forward_cuda);
  m.impl("elbo_gradient", elbo_gradient_cuda);
  m.impl("elbo_backward", elbo_backward_cuda);
}

}  // namespace pyvae
