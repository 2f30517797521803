// Decoder side on CUDA: allocate and launch; one kernel each way, or the tiled stages.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <array>

#include "ops/broadcast.h"
#include "ops/latent/cuda.h"
#include "ops/objective/cuda_tiles.h"
#include "ops/objective/implement.h"

namespace pyvae {
namespace cuda {

namespace {

// beta * beta_tensor: a number if it can be read without waiting for the device, else also a tensor.
Tensor set_beta(const ElboArguments& a, LossTerms& out) {
  out.beta = beta_of(a);
  if (!a.beta_tensor || a.beta_tensor->is_cpu()) return Tensor();
  const Tensor tensor = as_real(a.beta_tensor);
  out.beta_tensor = per_row(tensor);
  return tensor;
}

// The loss and, if requested, its terms. Scalars of one dtype share an allocation if they may, since an allocation
// takes as long as a small kernel. None of them is a view, so each can be written in place.
std::array<Tensor, 3> empty_results(const ElboArguments& a, TermOutputs terms) {
  if (terms == TermOutputs::kSkip) return {empty_reduced(a.recon, a.reduction, loss_type(a)), Tensor(), Tensor()};
  const at::ScalarType types[] = {loss_type(a), recon_type(a), kl_type(a)};
  std::array<Tensor, 3> out;
  if (terms == TermOutputs::kOwnStorage || a.reduction == kNone || types[1] != types[0] || types[2] != types[0]) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = empty_reduced(a.recon, a.reduction, types[i]);
    return out;
  }
  const Tensor all = at::empty({int64_t(out.size())}, a.recon.options().dtype(types[0]));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(all.storage()), all.key_set(), all.dtype());
    out[i].unsafeGetTensorImpl()->set_sizes_contiguous({});
    out[i].unsafeGetTensorImpl()->set_storage_offset(int64_t(i));
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t output_mask, TermOutputs terms) {
  Call call("elbo_forward", a.recon);
  const auto [loss, recon_term, kl_term] = empty_results(a, terms);
  const bool by_row = a.reduction == kNone && a.recon.size(0) > 1;  // the results are per row
  GradientTensors tensors(a, output_mask);
  const bool by_tiles = goes_by_tiles(a);
  Objective o{};
  o.factor = o.mean = mean_of(a);
  const Tensor beta = set_beta(a, o);
  o.loss = result(loss);
  if (terms != TermOutputs::kSkip) o.recon_term = result(recon_term), o.kl_term = result(kl_term);

  // The KL is a second segment of the launch. Per row, with tiles, or in the other precision, it has its own launch.
  DivergenceSegment& segment = o.divergence;
  Tensor kl = a.kl.value_or(Tensor());
  std::optional<LatentTensors> posterior;
  if (a.mu) {
    const LatentArguments latent = a.posterior();
    if (by_row || by_tiles || kl_type(a) != recon_type(a)) {
      kl = std::get<1>(latent_forward(latent, /*with_z=*/false, /*with_kl=*/true, by_row ? kNone : kSum));
    } else {
      posterior.emplace(latent);
      posterior->lay_out(latent, segment.posterior);
      segment.source = Divergence::kPosterior;
      segment.partition = Partition(1, a.mu->numel());
    }
  }
  if (by_tiles) {
    forward_by_tiles(call, a, tensors, o, kl, by_row);
    return {loss, recon_term, kl_term, tensors.finish()};
  }
  if (kl.defined()) {
    segment.source = Divergence::kGiven;
    segment.given = per_row(kl);
    if (!by_row) segment.partition = Partition(1, kl.numel());
  }
  tensors.lay_out(a, o);
  o.partition = by_row ? Partition(a.recon.size(0), a.recon.numel() / a.recon.size(0)) : Partition(1, a.recon.numel());
  const int64_t blocks = o.partition.blocks + segment.partition.blocks;
  if (!by_row || o.partition.parts > 1) o.workspace = call.workspace(blocks);
  if (blocks > 0) call.launch(o);
  return {loss, recon_term, kl_term, tensors.finish()};
}

std::tuple<Tensor, Gradients> elements(const LikelihoodArguments& a, int64_t output_mask) {
  Call call("elements_forward", a.recon);
  GradientTensors tensors(a, output_mask, /*with_elements=*/true);
  if (a.recon.numel() == 0) return {tensors.elements, tensors.finish()};
  if (goes_by_tiles(a)) {
    gradients_by_tiles(call, a, tensors);
    return {tensors.elements, tensors.finish()};
  }
  Objective o{};
  tensors.lay_out(a, o);
  o.partition = Partition(1, a.recon.numel());
  o.workspace = call.workspace(o.partition.blocks);
  call.launch(o);
  return {tensors.elements, tensors.finish()};
}

Gradients gradient(const LikelihoodArguments& a, const Tensor& upstream, int64_t output_mask) {
  Call call("elbo_gradient", a.recon);
  GradientTensors tensors(a, output_mask);
  if (a.recon.numel() == 0) return tensors.finish();
  if (goes_by_tiles(a)) {
    gradients_by_tiles(call, a, tensors, upstream);
    return tensors.finish();
  }
  const Tensor rows = as_real(upstream);
  ObjectiveBackward b{};
  tensors.lay_out(a, b.objective);
  b.objective.partition = Partition(1, a.recon.numel());
  b.grad_loss = per_row(rows);
  call.launch(b);
  return tensors.finish();
}

// sums: sums per column, if rows have different upstream gradients; null: no such sums.
std::tuple<Tensor, Tensor, Tensor> backward(const ElboArguments& a, const OptionalTensor& given,
                                            at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                            const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl,
                                            ColumnSums* sums) {
  Call call("elbo_backward_", a.recon);
  ObjectiveBackward b{};
  // 16-bit values were rounded before the factor (a loss scale, say) was known. Computing them again loses nothing.
  b.rescale = at::elementSize(a.recon.scalar_type()) > 2;
  b.done_if_one = true;
  OptionalTensor gradient = given;  // what remains to be done
  if (given && !b.rescale && goes_by_tiles(a)) {
    const Tensor upstream = upstream_of(grad_loss, grad_recon).mul(mean_of(a));
    given->copy_(cuda::gradient(a, upstream, int64_t(1) << kGradRecon)[kGradRecon]);
    gradient.reset();
  }
  size_t others = 0;
  for (const Tensor& other : parameter_gradients) {
    const bool is_dense = a.reduction == kNone ? other.is_contiguous() : other.is_non_overlapping_and_dense();
    if (b.rescale && is_dense && other.numel() > 0) {
      const int64_t each = std::max<int64_t>(1, other.numel() / a.recon.size(0));
      b.others[others++] = {other.mutable_data_ptr(), other.scalar_type() == at::kDouble, other.numel(), each};
    } else {
      other.mul_(aligned_rows(upstream_of(grad_loss, grad_recon), other));
    }
  }
  if (!gradient && !to_kl && others == 0 && !sums) return {};
  // In the same precision, the same launch computes the posterior's gradients.
  std::optional<LatentTensors> posterior;
  if (to_kl && a.mu && kl_type(a) == recon_type(a)) {
    posterior.emplace(a.posterior());
    posterior->grad_mu = at::empty_like(posterior->mu), posterior->grad_scale = at::empty_like(posterior->scale);
    posterior->lay_out(a.posterior(), b.objective.divergence.posterior);
  }
  const Tensor kl = to_kl && !posterior ? empty_reduced(a.recon, a.reduction, kl_type(a)) : Tensor();
  LikelihoodTensors tensors;
  if (gradient && gradient->numel() > 0) {
    if (!b.rescale) tensors = LikelihoodTensors(a);
    if (b.rescale) tensors.recon = *gradient;  // only the gradient is laid out
    tensors.gradient = *gradient;
    tensors.lay_out(a, b.objective);
    b.objective.partition = Partition(1, a.recon.numel());
  }
  b.objective.factor = b.objective.mean = mean_of(a);
  b.objective.in_double = recon_type(a) == at::kDouble;
  const Tensor beta = set_beta(a, b.objective);
  const Tensor from_loss = as_real(grad_loss), from_recon = as_real(grad_recon), from_kl = as_real(grad_kl);
  b.grad_loss = per_row(from_loss), b.grad_recon = per_row(from_recon), b.grad_kl = per_row(from_kl);
  if (kl.defined()) b.to_kl = result(kl), b.batch = kl.numel();
  if (sums) b.comparison = sums->comparison();
  if (b.batch > 0 || b.objective.partition.blocks > 0 || others > 0 || posterior || sums) call.launch(b);
  if (sums) sums->launch(call);
  if (posterior) return {posterior->grad_mu, posterior->grad_scale, Tensor()};
  if (!to_kl || !a.mu) return {Tensor(), Tensor(), kl};
  auto [grad_mu, grad_scale, no_mean, no_scale] = latent_backward(a.posterior(), kAbsent, kl, /*to_prior=*/false);
  return {grad_mu, grad_scale, Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> backward_(const ElboArguments& a, const OptionalTensor& gradient,
                                             at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                             const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                             bool to_kl) {
  return backward(a, gradient, parameter_gradients, grad_loss, grad_recon, grad_kl, to_kl, /*sums=*/nullptr);
}

std::tuple<Tensor, Tensor, Tensor> backward_rows_(const ElboArguments& a, Gradients& gradients,
                                                  const OptionalTensor& grad_loss, const OptionalTensor& grad_recon,
                                                  const OptionalTensor& grad_kl, bool to_kl) {
  const int64_t rows = a.recon.size(0);
  const auto is_one_for_all = [&](const OptionalTensor& upstream) {
    return rows == 1 || !upstream || upstream->stride(0) == 0;
  };
  const bool is_uniform = is_one_for_all(grad_loss) && is_one_for_all(grad_recon);  // no comparison needed
  c10::SmallVector<Tensor, kGradients> others;
  Tensor sums[kMaxParameters];
  bool with_sums = false;
  for (int64_t place = kGradRecon + 1; place < kGradients && a.recon.numel() > 0; ++place) {
    const Tensor& gradient = gradients[place];
    if (!gradient.defined()) continue;
    const bool by_row = gradient.dim() == a.recon.dim() && gradient.size(0) == rows;
    if (place < kGradParameter || by_row || is_uniform) {
      others.push_back(gradient);
    } else {
      sums[place - kGradParameter] = gradient, with_sums = true;
    }
  }
  std::optional<ColumnSums> columns;
  if (with_sums) columns.emplace(a, sums, gradients[kKept], upstream_of(grad_loss, grad_recon));
  const OptionalTensor gradient =
      gradients[kGradRecon].defined() ? OptionalTensor(gradients[kGradRecon]) : std::nullopt;
  const auto out = backward(a, gradient, others, grad_loss, grad_recon, grad_kl, to_kl, columns ? &*columns : nullptr);
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    Tensor& own = gradients[kGradParameter + k];
    const Tensor& parameter = *a.parameters[k];
    if (own.defined() && own.sizes() != parameter.sizes()) {
      own = sum_to(own, parameter.sizes(), parameter.scalar_type());
    }
  }
  return out;
}

}  // namespace

extern const ObjectiveFunctions kObjective;
const ObjectiveFunctions kObjective = {.forward = forward,
                                       .elements = elements,
                                       .gradient = gradient,
                                       .backward_ = backward_,
                                       .backward_rows_ = backward_rows_};

}  // namespace cuda

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) { implement_objective<cuda::kObjective>(m, at::PYVAE_DEVICE_TYPE); }

}  // namespace pyvae
