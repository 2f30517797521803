// Encoder side: validate, allocate, run; and the gradient, which draws the noise again.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include "ops/autograd.h"
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
    if (seed->device() != mu.device()) return "seed must be on mu's device";
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

// The part of the kernels' arguments that forward and backward share.
template <class Call>
void set_noise(Call& call, const OptionalTensor& seed, int64_t row_offset, int64_t scale_kind) {
  call.seed = seed ? uint64_t(*seed->const_data_ptr<int64_t>()) : 0;
  call.offset = 0;
  call.first_index = uint64_t(row_offset) * uint64_t(call.shape.features);
  call.scale_kind = int(scale_kind);
}

std::tuple<Tensor, Tensor> latent_forward_cpu(const Tensor& mu_in, const Tensor& scale_in, const OptionalTensor& eps_in,
                                              const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                              bool with_z, bool with_kl, int64_t reduction) {
  check_latent("latent_forward", mu_in, scale_in, eps_in, seed, scale_kind, with_z);
  TORCH_CHECK_VALUE(reduction >= 0 && reduction < kReductions, "pyvae::latent_forward: unknown reduction");
  const Tensor mu = within_dims(mu_in), scale = within_dims(scale_in);
  const Tensor eps = with_z ? within_dims(value_or_undefined(eps_in)) : Tensor();
  const at::ScalarType z_type = at::promote_types(mu.scalar_type(), scale.scalar_type());
  const at::ScalarType type = compute_type(mu.scalar_type(), scale.scalar_type());
  const Tensor z = with_z ? empty_output(mu, z_type) : Tensor();

  cpu::LatentForward call{};
  call.shape = lay_out({{&mu, &call.mu}, {&scale, &call.scale}, {&eps, &call.eps}, {&z, &call.z}}, !with_z);
  set_noise(call, seed, row_offset.expect_int(), scale_kind);
  const cpu::Partition partition(call.shape);
  Doubles partials(with_kl ? partition.partials() : 0, 0.0);
  call.divergence = with_kl ? partials.data() : nullptr;
  if (mu.numel() > 0) {
    const cpu::Table& table = *cpu::table();
    const auto kernel = type == at::kDouble ? table.in_double.latent_forward : table.in_float.latent_forward;
    at::parallel_for(0, partition.chunks, kLatentGrain, [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  }
  const Tensor no_z = with_z ? z : at::empty({0}, z_type);
  if (!with_kl) return {no_z, at::empty({0}, type)};
  const Doubles kl = reduce_rows(call.shape, partials.data(), reduction);
  return {no_z, to_tensor(kl.data(), int64_t(kl.size()), reduction != kNone, type)};
}

std::tuple<Tensor, Tensor> latent_backward_cpu(const OptionalTensor& grad_z_in, const OptionalTensor& grad_kl,
                                               const Tensor& mu_in, const Tensor& scale_in,
                                               const OptionalTensor& eps_in, const OptionalTensor& seed,
                                               int64_t scale_kind, c10::SymInt row_offset) {
  check_latent("latent_backward", mu_in, scale_in, eps_in, seed, scale_kind, grad_z_in.has_value());
  TORCH_CHECK_VALUE(!grad_z_in || grad_z_in->sizes() == mu_in.sizes(),
                    "pyvae::latent_backward: grad_z must have mu's shape");
  TORCH_CHECK_VALUE(!grad_kl || (grad_kl->dim() == 1 && grad_kl->numel() == mu_in.size(0)),
                    "pyvae::latent_backward: grad_kl must have shape (B,)");
  const Tensor mu = within_dims(mu_in), scale = within_dims(scale_in);
  const Tensor grad_z = within_dims(value_or_undefined(grad_z_in)), eps = within_dims(value_or_undefined(eps_in));
  const Tensor grad_mu = grad_z.defined() || grad_kl ? empty_output(mu, mu.scalar_type()) : at::zeros_like(mu);
  const Tensor grad_scale =
      grad_z.defined() || grad_kl ? empty_output(scale, scale.scalar_type()) : at::zeros_like(scale);
  if (mu.numel() == 0 || !(grad_z.defined() || grad_kl)) return {grad_mu, grad_scale};

  cpu::LatentBackward call{};
  call.shape = lay_out({{&mu, &call.mu},
                        {&scale, &call.scale},
                        {&eps, &call.eps},
                        {&grad_z, &call.grad_z},
                        {&grad_mu, &call.grad_mu},
                        {&grad_scale, &call.grad_scale}},
                       !grad_z.defined());
  set_noise(call, seed, row_offset.expect_int(), scale_kind);
  const Doubles upstream = grad_kl ? read_doubles(*grad_kl) : Doubles();
  call.grad_kl = grad_kl ? upstream.data() : nullptr;
  const cpu::Table& table = *cpu::table();
  const bool in_double = compute_type(mu.scalar_type(), scale.scalar_type()) == at::kDouble;
  const auto kernel = in_double ? table.in_double.latent_backward : table.in_float.latent_backward;
  at::parallel_for(0, cpu::Partition(call.shape).chunks, kLatentGrain,
                   [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  return {grad_mu, grad_scale};
}

// ---- shapes without data
// ----------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> latent_forward_meta(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                               const OptionalTensor& seed, int64_t scale_kind, c10::SymInt, bool with_z,
                                               bool with_kl, int64_t reduction) {
  check_latent("latent_forward", mu, scale, eps, seed, scale_kind, with_z);
  const auto z_options = mu.options().dtype(at::promote_types(mu.scalar_type(), scale.scalar_type()));
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
// -----------------------------------------------------------------------------------------------------------

auto call_latent_forward(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps, const OptionalTensor& seed,
                         int64_t scale_kind, c10::SymInt row_offset, bool with_z, bool with_kl, int64_t reduction) {
  static const auto op = find_operator<decltype(latent_forward)>("pyvae::latent_forward");
  return op.call(mu, scale, eps, seed, scale_kind, std::move(row_offset), with_z, with_kl, reduction);
}

// Both differentiable operators are this function: the sample with or without the divergence, or the divergence alone.
struct Latent : torch::autograd::Function<Latent> {
  static variable_list forward(AutogradContext* ctx, const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                               const OptionalTensor& seed, int64_t scale_kind, const c10::SymInt& row_offset,
                               bool with_z, bool with_kl, int64_t reduction) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [z, kl] = call_latent_forward(mu, scale, eps, seed, scale_kind, row_offset, with_z, with_kl, reduction);
    if (!with_z) ctx->mark_non_differentiable({z});
    if (!with_kl) ctx->mark_non_differentiable({kl});
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({mu, scale, value_or_undefined(eps), value_or_undefined(seed)});
    ctx->saved_data["scale_kind"] = scale_kind;
    ctx->saved_data["row_offset"] = row_offset;
    ctx->saved_data["reduction"] = with_z ? int64_t(-1) : reduction;
    return {z, kl};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &mu = saved[0], &scale = saved[1];
    const int64_t scale_kind = ctx->saved_data["scale_kind"].toInt();
    const c10::SymInt row_offset = ctx->saved_data["row_offset"].toSymInt();
    const int64_t reduction = ctx->saved_data["reduction"].toInt();
    variable_list out(9);
    const std::vector<bool> wanted = wanted_gradients(ctx, saved);
    if (at::GradMode::is_enabled() || wanted[2]) {
      ReferenceCall call{"reparameterize", saved, {scale_kind, row_offset.expect_int()}, 1, grads, wanted};
      if (reduction >= 0) call.name = "kl_divergence", call.codes = {scale_kind, reduction}, call.upstream = {grads[1]};
      const variable_list gradients = reference_gradient()(call);
      std::copy(gradients.begin(), gradients.end(), out.begin());
      return out;
    }
    if (!grads[0].defined() && !grads[1].defined()) return out;
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
  const auto out = Latent::apply(mu, scale, eps, seed, scale_kind, row_offset, true, with_kl, int64_t(kNone));
  return {out[0], out[1]};
}

Tensor kl_divergence_autograd(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction) {
  if (!needs_gradient({&mu, &scale}, {})) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return std::get<1>(
        call_latent_forward(mu, scale, std::nullopt, std::nullopt, scale_kind, c10::SymInt(0), false, true, reduction));
  }
  return Latent::apply(mu, scale, OptionalTensor(), OptionalTensor(), scale_kind, c10::SymInt(0), false, true,
                       reduction)[1];
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

Tensor kl_divergence(const Tensor& mu, const Tensor& scale, int64_t scale_kind, int64_t reduction) {
  static const auto op = find_operator<decltype(kl_divergence)>("pyvae::kl_divergence");
  return op.call(mu, scale, scale_kind, reduction);
}

TORCH_LIBRARY_IMPL(pyvae, CPU, m) {
  m.impl("latent_forward", latent_forward_cpu);
  m.impl("latent_backward", latent_backward_cpu);
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
