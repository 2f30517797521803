// Encoder side on the CPU: allocate and run.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <torch/library.h>

#include "ops/checks.h"
#include "ops/cpu/numbers.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

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
  check_latent_forward(mu_in, scale_in, eps_in, seed, scale_kind, with_z, reduction);
  const Tensor mu = within_dims(mu_in), scale = within_dims(scale_in);
  const Tensor eps = with_z ? within_dims(value_or_undefined(eps_in)) : Tensor();
  const at::ScalarType z_type = c10::promoteTypes(mu.scalar_type(), scale.scalar_type());
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
  check_latent_backward(grad_z_in, grad_kl, mu_in, scale_in, eps_in, seed, scale_kind);
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

}  // namespace

TORCH_LIBRARY_IMPL(pyvae, CPU, m) {
  m.impl("latent_forward", latent_forward_cpu);
  m.impl("latent_backward", latent_backward_cpu);
}

}  // namespace pyvae
