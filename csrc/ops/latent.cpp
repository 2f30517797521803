// Encoder side: what is legal, the shapes of results, and the gradient, which draws the noise again.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include "ops/autograd.h"
#include "ops/checks.h"
#include "ops/layout.h"

namespace pyvae {

const char* refuse_latent(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                          int64_t scale_kind) {
  if (!is_supported_type(mu.scalar_type()) || !is_supported_type(scale.scalar_type()))
    return "mu and scale must be floating";
  if (mu.dim() == 0) return "mu must have a batch dimension";
  if (mu.sym_sizes() != scale.sym_sizes()) return "mu and scale must have one shape";
  if (mu.device() != scale.device()) return "mu and scale must be on one device";
  if (scale_kind < 0 || scale_kind >= kScales) return "unknown scale";
  if (eps) {
    if (!is_supported_type(eps->scalar_type())) return "eps must be floating";
    if (eps->sym_sizes() != mu.sym_sizes()) return "eps must have mu's shape";
    if (eps->device() != mu.device()) return "eps must be on mu's device";
  }
  if (seed) {
    if (seed->scalar_type() != at::kLong || seed->sym_numel() != 1) return "seed must be one int64";
    if (seed->device() != mu.device() && !seed->is_cpu()) return "seed must be on mu's device or on the CPU";
  }
  return nullptr;
}

namespace {

void check_latent(const char* function, const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                  const OptionalTensor& seed, int64_t scale_kind, bool with_noise) {
  const char* refusal = refuse_latent(mu, scale, eps, seed, scale_kind);
  TORCH_CHECK_VALUE(!refusal, "pyvae::", function, ": ", refusal);
  TORCH_CHECK_VALUE(!with_noise || eps || seed, "pyvae::", function, ": either eps or seed must be given");
}

}  // namespace

void check_latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                          int64_t scale_kind, bool with_z, int64_t reduction) {
  check_latent("latent_forward", mu, scale, eps, seed, scale_kind, with_z);
  TORCH_CHECK_VALUE(reduction >= 0 && reduction < kReductions, "pyvae::latent_forward: unknown reduction");
}

void check_latent_backward(const OptionalTensor& grad_z, const OptionalTensor& grad_kl, const Tensor& mu,
                           const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                           int64_t scale_kind) {
  check_latent("latent_backward", mu, scale, eps, seed, scale_kind, grad_z.has_value());
  TORCH_CHECK_VALUE(!grad_z || grad_z->sizes() == mu.sizes(), "pyvae::latent_backward: grad_z must have mu's shape");
  TORCH_CHECK_VALUE(!grad_kl || (grad_kl->dim() == 1 && grad_kl->numel() == mu.size(0)),
                    "pyvae::latent_backward: grad_kl must have shape (B,)");
}

namespace {

// ---- shapes without data

std::tuple<Tensor, Tensor> latent_forward_meta(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                               const OptionalTensor& seed, int64_t scale_kind, c10::SymInt, bool with_z,
                                               bool with_kl, int64_t reduction) {
  check_latent_forward(mu, scale, eps, seed, scale_kind, with_z, reduction);
  const auto z_options = mu.options().dtype(c10::promoteTypes(mu.scalar_type(), scale.scalar_type()));
  const auto kl_options = mu.options().dtype(compute_type(mu.scalar_type(), scale.scalar_type()));
  const Tensor none = at::empty({0}, kl_options);
  const Tensor kl = !with_kl             ? none
                    : reduction == kNone ? at::empty_symint({mu.sym_size(0)}, kl_options)
                                         : at::empty({}, kl_options);
  return {with_z ? at::empty_like(mu, z_options) : at::empty({0}, z_options), kl};
}

std::tuple<Tensor, Tensor> latent_backward_meta(const OptionalTensor&, const OptionalTensor&, const Tensor& mu,
                                                const Tensor& scale, const OptionalTensor&, const OptionalTensor&,
                                                int64_t, c10::SymInt) {
  return {at::empty_like(mu), at::empty_like(scale)};
}

// ---- autograd

auto call_latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                         int64_t scale_kind, c10::SymInt row_offset, bool with_z, bool with_kl, int64_t reduction) {
  static const auto op = find_operator<decltype(latent_forward)>("pyvae::latent_forward");
  return op.call(mu, scale, eps, seed, scale_kind, std::move(row_offset), with_z, with_kl, reduction);
}

auto call_latent_draw(const Tensor& mu, const Tensor& scale, const std::optional<at::Generator>& generator,
                      int64_t scale_kind, c10::SymInt row_offset, bool with_kl) {
  static const auto op = find_operator<decltype(latent_draw)>("pyvae::latent_draw");
  return op.call(mu, scale, generator, scale_kind, std::move(row_offset), with_kl);
}

// What the function below computes.
struct LatentCall {
  int64_t scale_kind;
  c10::SymInt row_offset = 0;
  bool with_z = true, with_kl = true;
  int64_t reduction = kNone;
  bool drawn = false;  // the seed is drawn by the kernel, from `generator`
  std::optional<at::Generator> generator = std::nullopt;
};

// All differentiable operators are this function: the sample with or without the divergence, or the divergence alone.
struct Latent : torch::autograd::Function<Latent> {
  static variable_list forward(AutogradContext* ctx, const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                               const OptionalTensor& seed, const LatentCall& call) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor z, kl, key = value_or_undefined(seed);
    if (call.drawn) {
      std::tie(z, kl, key) =
          call_latent_draw(mu, scale, call.generator, call.scale_kind, call.row_offset, call.with_kl);
    } else {
      std::tie(z, kl) = call_latent_forward(mu, scale, eps, seed, call.scale_kind, call.row_offset, call.with_z,
                                            call.with_kl, call.reduction);
    }
    if (!call.with_z) ctx->mark_non_differentiable({z});
    if (!call.with_kl) ctx->mark_non_differentiable({kl});
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({mu, scale, value_or_undefined(eps), key});
    ctx->saved_data["scale_kind"] = call.scale_kind;
    ctx->saved_data["row_offset"] = call.row_offset;
    ctx->saved_data["reduction"] = call.with_z ? int64_t(-1) : call.reduction;
    return {z, kl};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &mu = saved[0], &scale = saved[1];
    const int64_t scale_kind = ctx->saved_data["scale_kind"].toInt();
    const c10::SymInt row_offset = ctx->saved_data["row_offset"].toSymInt();
    const int64_t reduction = ctx->saved_data["reduction"].toInt();
    variable_list out(5);
    std::vector<bool> wanted = wanted_gradients(ctx, {mu, scale, saved[2]});
    wanted.push_back(false);  // the seed
    if (at::GradMode::is_enabled() || wanted[2]) {
      ReferenceCall call{"reparameterize", saved, {scale_kind, row_offset.expect_int()}, 1, grads, wanted};
      if (reduction >= 0) call.name = "kl_divergence", call.codes = {scale_kind, reduction}, call.upstream = {grads[1]};
      const variable_list gradients = reference_gradient()(call);
      std::copy(gradients.begin(), gradients.end(), out.begin());
      return out;
    }
    if (!grads[0].defined() && !grads[1].defined()) return out;
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor grad_kl = grads[1];
    if (grad_kl.defined() && reduction > kNone) {  // one number for all rows
      if (reduction == kBatchMean) grad_kl = grad_kl.div(batch_size(mu));
      grad_kl = grad_kl.expand_symint({mu.sym_size(0)});
    }
    static const auto op = find_operator<decltype(latent_backward)>("pyvae::latent_backward");
    std::tie(out[0], out[1]) = op.call(optional(grads[0]), optional(grad_kl), mu, scale, optional(saved[2]),
                                       optional(saved[3]), scale_kind, row_offset);
    return out;
  }
};

std::tuple<Tensor, Tensor> reparameterize_autograd(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                                   const OptionalTensor& seed, int64_t scale_kind,
                                                   c10::SymInt row_offset, bool with_kl) {
  if (!needs_gradient({&mu, &scale}, {&eps})) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_latent_forward(mu, scale, eps, seed, scale_kind, std::move(row_offset), true, with_kl, kNone);
  }
  LatentCall call{scale_kind, std::move(row_offset)};
  call.with_kl = with_kl;
  const auto out = Latent::apply(mu, scale, eps, seed, call);
  return {out[0], out[1]};
}

Tensor kl_divergence_autograd(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction) {
  if (!needs_gradient({&mu, &scale}, {})) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return std::get<1>(
        call_latent_forward(mu, scale, std::nullopt, std::nullopt, scale_kind, c10::SymInt(0), false, true, reduction));
  }
  LatentCall call{scale_kind};
  call.with_z = false, call.reduction = reduction;
  return Latent::apply(mu, scale, OptionalTensor(), OptionalTensor(), call)[1];
}

// Without a gradient to prepare, the operators are their forward kernel.
std::tuple<Tensor, Tensor> reparameterize_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                                  const OptionalTensor& seed, int64_t scale_kind,
                                                  c10::SymInt row_offset, bool with_kl) {
  return call_latent_forward(mu, scale, eps, seed, scale_kind, std::move(row_offset), true, with_kl, kNone);
}

Tensor kl_divergence_forward(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction) {
  return std::get<1>(
      call_latent_forward(mu, scale, std::nullopt, std::nullopt, scale_kind, c10::SymInt(0), false, true, reduction));
}

}  // namespace

std::tuple<Tensor, Tensor> reparameterize(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                          const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                          bool with_kl) {
  static const auto op = find_operator<decltype(reparameterize)>("pyvae::reparameterize");
  return op.call(mu, scale, eps, seed, scale_kind, std::move(row_offset), with_kl);
}

std::tuple<Tensor, Tensor> reparameterize_drawn(const Tensor& mu, const Tensor& scale,
                                                const std::optional<at::Generator>& generator, int64_t scale_kind,
                                                c10::SymInt row_offset, bool with_kl) {
  if (!needs_gradient({&mu, &scale}, {})) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [z, kl, seed] = call_latent_draw(mu, scale, generator, scale_kind, std::move(row_offset), with_kl);
    return {z, kl};
  }
  LatentCall call{scale_kind, std::move(row_offset)};
  call.with_kl = with_kl, call.drawn = true, call.generator = generator;
  const auto out = Latent::apply(mu, scale, OptionalTensor(), OptionalTensor(), call);
  return {out[0], out[1]};
}

Tensor kl_divergence(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction) {
  static const auto op = find_operator<decltype(kl_divergence)>("pyvae::kl_divergence");
  return op.call(mu, scale, scale_kind, reduction);
}

TORCH_LIBRARY_IMPL(pyvae, Meta, m) {
  m.impl("latent_forward", latent_forward_meta);
  m.impl("latent_backward", latent_backward_meta);
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) {
  m.impl("reparameterize", reparameterize_forward);
  m.impl("kl_divergence", kl_divergence_forward);
}

TORCH_LIBRARY_IMPL(pyvae, Autograd, m) {
  m.impl("reparameterize", reparameterize_autograd);
  m.impl("kl_divergence", kl_divergence_autograd);
}

}  // namespace pyvae
