// The device without data: shapes and types of results, for compilers and meta tensors.
#include <ATen/ops/empty.h>

#include "ops/implement.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

Tensor reduced(const Tensor& like, int64_t reduction, at::ScalarType type) {
  const auto options = like.options().dtype(type);
  return reduction == kNone ? at::empty_symint({like.sym_size(0)}, options) : at::empty({}, options);
}

std::tuple<Tensor, Tensor> latent_forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction) {
  const auto options = a.mu.options().dtype(sample_type(a));
  const auto in_compute_type = a.mu.options().dtype(compute_type(a.mu, a.scale));
  const auto divergence = [&] {
    return reduction == kElements ? empty_like_operand(a.mu, in_compute_type)
                                  : reduced(a.mu, reduction, compute_type(a.mu, a.scale));
  };
  return {with_z ? empty_like_operand(a.mu, options) : at::empty({0}, options),
          with_kl ? divergence() : at::empty({0}, in_compute_type)};
}

std::tuple<Tensor, Tensor, Tensor> latent_draw(const LatentArguments& a, const std::optional<at::Generator>&,
                                               bool with_kl) {
  auto [z, kl] = latent_forward(a, true, with_kl, kNone);
  return {z, kl, at::empty({1}, a.mu.options().dtype(at::kLong))};
}

LatentGradients latent_backward(const LatentArguments& a, const OptionalTensor&, const OptionalTensor&, bool to_prior) {
  const auto to = [&](const OptionalTensor& part) {
    return to_prior ? at::empty_symint(part->sym_sizes(), part->options()) : Tensor();
  };
  return {empty_like_operand(a.mu), empty_like_operand(a.scale), to(a.prior_mean), to(a.prior_scale)};
}

Gradients empty_gradients(const LikelihoodArguments& a, int64_t wanted) {
  // Of a parameter that was broadcast, the sums are a new tensor.
  const auto of = [&a](const Tensor& parameter) {
    const bool whole = parameter.sym_sizes() == a.recon.sym_sizes();
    return whole ? empty_like_operand(parameter) : at::empty_symint(parameter.sym_sizes(), parameter.options());
  };
  Gradients out;
  if (wants(wanted, kOfRecon)) out[kOfRecon] = empty_like_operand(a.recon);
  if (wants(wanted, kOfParameter)) out[kOfParameter] = of(*a.parameter);
  if (wants(wanted, kOfSecondParameter)) out[kOfSecondParameter] = of(*a.second_parameter);
  if (wants(wanted, kOfLibrary)) out[kOfLibrary] = of(*a.log_library);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Gradients> elbo_forward(const ElboArguments& a, int64_t wanted, Breakdown) {
  return {reduced(a.recon, a.reduction, loss_type(a)), reduced(a.recon, a.reduction, recon_type(a)),
          reduced(a.recon, a.reduction, kl_type(a)), empty_gradients(a, wanted)};
}

Gradients elbo_gradient(const LikelihoodArguments& a, const Tensor&, int64_t wanted) {
  return empty_gradients(a, wanted);
}

Tensor elbo_backward_(const ElboArguments& a, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                      const OptionalTensor&, bool to_kl) {
  return to_kl ? reduced(a.recon, a.reduction, kl_type(a)) : at::empty({0}, a.recon.options());
}

}  // namespace

extern const Device kMeta;
const Device kMeta = {nullptr,         false,        latent_forward, latent_draw,
                      latent_backward, elbo_forward, elbo_gradient,  elbo_backward_};

TORCH_LIBRARY_IMPL(pyvae, Meta, m) { implement<kMeta>(m, at::kMeta); }

}  // namespace pyvae
