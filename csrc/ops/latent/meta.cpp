// The encoder side without data: shapes and dtypes of results, for compilers and meta tensors.
#include "ops/latent/implement.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

std::tuple<Tensor, Tensor> forward(const LatentArguments& a, bool with_z, bool with_kl, int64_t reduction) {
  const auto options = a.mu.options().dtype(sample_type(a));
  const at::ScalarType type = compute_type(a.mu, a.scale);
  const auto divergence = [&] {
    return reduction == kElements ? empty_like_operand(a.mu, a.mu.options().dtype(type))
                                  : empty_reduced(a.mu, reduction, type);
  };
  return {with_z ? empty_sample(a) : at::empty({0}, options),
          with_kl ? divergence() : at::empty({0}, options.dtype(type))};
}

std::tuple<Tensor, Tensor, Tensor> draw(const LatentArguments& a, const std::optional<at::Generator>&, bool with_kl) {
  auto [z, kl] = forward(a, true, with_kl, kNone);
  return {z, kl, at::empty({1}, a.mu.options().dtype(at::kLong))};
}

LatentGradients backward(const LatentArguments& a, const OptionalTensor&, const OptionalTensor&, bool to_prior) {
  const auto to = [&](const OptionalTensor& part) {
    return to_prior ? at::empty_symint(part->sym_sizes(), part->options()) : Tensor();
  };
  return {empty_like_operand(a.mu), empty_like_operand(a.scale), to(a.prior_mean), to(a.prior_scale)};
}

}  // namespace

extern const LatentFunctions kLatentOnMeta;
const LatentFunctions kLatentOnMeta = {.forward = forward, .draw = draw, .backward = backward};

TORCH_LIBRARY_IMPL(pyvae, Meta, m) { implement_latent<kLatentOnMeta>(m, at::kMeta); }

}  // namespace pyvae
