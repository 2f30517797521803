// Encoder side on CUDA: allocate and launch, one kernel each way.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/cuda/tensors.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

using cuda::Partition;

// One launch of the forward kernel. Without a seed it is drawn from `generator`, into the returned `seed`.
struct Forward {
  Tensor z, kl, seed;

  Forward(const char* function, const Tensor& mu_in, const Tensor& scale_in, const OptionalTensor& eps_in,
          const OptionalTensor& seed_in, const std::optional<at::Generator>& generator, int64_t scale_kind,
          int64_t row_offset, bool with_z, bool with_kl, int64_t reduction) {
    const Tensor mu = within_dims(mu_in), scale = within_dims(scale_in);
    const Tensor eps = with_z ? within_dims(eps_in.value_or(Tensor())) : Tensor();
    const at::ScalarType z_type = c10::promoteTypes(mu.scalar_type(), scale.scalar_type());
    const at::ScalarType type = compute_type(mu.scalar_type(), scale.scalar_type());
    cuda::Call call(function, mu);
    z = with_z ? at::empty_like(mu, mu.options().dtype(z_type)) : at::empty({0}, mu.options().dtype(z_type));
    kl = with_kl ? cuda::empty_result(mu, reduction, type) : at::empty({0}, mu.options().dtype(type));

    cuda::LatentForward a{};
    const Tensor sample = with_z ? z : Tensor();
    a.shape = lay_out({{&mu, &a.mu}, {&scale, &a.scale}, {&eps, &a.eps}, {&sample, &a.z}}, !with_z);
    a.partition = with_kl && reduction == kNone ? Partition(a.shape.rows, a.shape.features) : Partition(1, mu.numel());
    a.in_double = type == at::kDouble;
    if (with_kl) a.kl = cuda::result(kl);
    if (reduction == kBatchMean) a.kl_factor = 1.0 / double(a.shape.rows);
    if (with_z && !eps_in) {
      if (!seed_in) seed = at::empty({1}, mu.options().dtype(at::kLong));
      a.key = seed_in ? call.key(*seed_in) : call.draw(generator, seed);
    }
    a.first_index = uint64_t(row_offset) * uint64_t(a.shape.features);
    a.scale_kind = int(scale_kind);
    if (with_kl && a.partition.parts > 1) a.workspace = call.workspace(a.partition.blocks);
    if (a.partition.blocks > 0) call.launch(a);
  }
};

std::tuple<Tensor, Tensor> latent_forward_cuda(const Tensor& mu, const Tensor& scale, const OptionalTensor& eps,
                                               const OptionalTensor& seed, int64_t scale_kind, c10::SymInt row_offset,
                                               bool with_z, bool with_kl, int64_t reduction) {
  check_latent_forward(mu, scale, eps, seed, scale_kind, with_z, reduction);
  const Forward out("latent_forward", mu, scale, eps, seed, std::nullopt, scale_kind, row_offset.expect_int(), with_z,
                    with_kl, reduction);
  return {out.z, out.kl};
}

std::tuple<Tensor, Tensor, Tensor> latent_draw_cuda(const Tensor& mu, const Tensor& scale,
                                                    const std::optional<at::Generator>& generator, int64_t scale_kind,
                                                    c10::SymInt row_offset, bool with_kl) {
  check_latent_forward(mu, scale, std::nullopt, std::nullopt, scale_kind, /*with_z=*/false, kNone);
  const Forward out("latent_draw", mu, scale, std::nullopt, std::nullopt, generator, scale_kind,
                    row_offset.expect_int(), true, with_kl, kNone);
  return {out.z, out.kl, out.seed};
}

std::tuple<Tensor, Tensor> latent_backward_cuda(const OptionalTensor& grad_z_in, const OptionalTensor& grad_kl,
                                                const Tensor& mu_in, const Tensor& scale_in,
                                                const OptionalTensor& eps_in, const OptionalTensor& seed,
                                                int64_t scale_kind, c10::SymInt row_offset) {
  check_latent_backward(grad_z_in, grad_kl, mu_in, scale_in, eps_in, seed, scale_kind);
  const Tensor mu = within_dims(mu_in), scale = within_dims(scale_in);
  const Tensor grad_z = within_dims(grad_z_in.value_or(Tensor())), eps = within_dims(eps_in.value_or(Tensor()));
  cuda::Call call("latent_backward", mu);
  if (!grad_z.defined() && !grad_kl) return {at::zeros_like(mu), at::zeros_like(scale)};
  const Tensor grad_mu = at::empty_like(mu), grad_scale = at::empty_like(scale);
  if (mu.numel() == 0) return {grad_mu, grad_scale};

  cuda::LatentBackward a{};
  a.shape = lay_out({{&mu, &a.mu},
                     {&scale, &a.scale},
                     {&eps, &a.eps},
                     {&grad_z, &a.grad_z},
                     {&grad_mu, &a.grad_mu},
                     {&grad_scale, &a.grad_scale}},
                    !grad_z.defined());
  a.partition = Partition(1, mu.numel());
  a.in_double = compute_type(mu.scalar_type(), scale.scalar_type()) == at::kDouble;
  const Tensor per_row = cuda::as_real(grad_kl);
  a.grad_kl = cuda::per_row(per_row);
  if (grad_z.defined() && !eps_in) a.key = call.key(*seed);
  a.first_index = uint64_t(row_offset.expect_int()) * uint64_t(a.shape.features);
  a.scale_kind = int(scale_kind);
  call.launch(a);
  return {grad_mu, grad_scale};
}

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, PYVAE_DEVICE_KEY, m) {
  m.impl("latent_forward", latent_forward_cuda);
  m.impl("latent_draw", latent_draw_cuda);
  m.impl("latent_backward", latent_backward_cuda);
}

}  // namespace pyvae
