// Decoder side on the CPU: allocate and run. The forward pass already writes the gradient.
#include "ops/latent/cpu.h"

#include <algorithm>

#include "math/elbo.h"
#include "ops/dtypes.h"
#include "ops/layout.h"
#include "ops/objective/cpu_by_rows.h"
#include "ops/objective/cpu_share.h"
#include "ops/objective/implement.h"

namespace pyvae {
namespace cpu {

namespace {

// Runs the kernel: sums per row, if they are wanted, and the gradient times upstream [rows], if its tensor is defined.
void run(const LikelihoodArguments& a, const LikelihoodTensors& tensors, double factor, const double* upstream,
         Doubles* partials) {
  Objective call{};
  tensors.lay_out(a, call);
  call.factor = factor;
  call.upstream = upstream;
  const Chunks chunks(call.shape);
  if (partials) partials->assign(chunks.partials(), 0.0);
  call.sums = partials ? partials->data() : nullptr;
  const auto kernel = kernels(call.in_double).objective;
  share(a, chunks.count, kObjectiveGrain, [&](int64_t begin, int64_t end) { return kernel(call, begin, end); });
}

// The likelihood of each row, if it is asked for, and the gradients of the output mask times factor times upstream
// [rows].
Gradients run(const LikelihoodArguments& a, int64_t output_mask, double factor, const double* upstream,
              Doubles* partials) {
  if (kTraits[a.likelihood].goes_by_rows) return run_by_rows(a, output_mask, factor, upstream, partials);
  LikelihoodTensors tensors(a);
  if (is_set(output_mask, kGradRecon)) tensors.gradient = empty_output(tensors.recon, a.recon.scalar_type());
  run(a, tensors, factor, upstream, partials);
  return {tensors.gradient};
}

std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t output_mask, TermOutputs terms) {
  const bool with_terms = terms != TermOutputs::kSkip;
  const int64_t rows = a.recon.size(0);
  Doubles partials;
  const Gradients gradients = run(a, output_mask, mean_of(a), nullptr, &partials);
  const int64_t per_row = rows > 0 ? int64_t(partials.size()) / rows : 0;
  const Doubles recon_term = reduce_rows(rows, per_row, partials.data(), a.reduction);

  Doubles kl_term = reduce_rows(rows, 0, nullptr, a.reduction);  // zeros; of no rows the mean is NaN
  if (a.mu) {
    kl_term = divergence(a.posterior(), a.reduction);
  } else if (a.kl) {
    kl_term = reduce_rows(rows, 1, read_doubles(*a.kl).data(), a.reduction);
  }
  const double beta = beta_of(a);
  Doubles loss(recon_term.size());
  for (size_t i = 0; i < loss.size(); ++i) loss[i] = negative_elbo(recon_term[i], kl_term[i], beta);
  return {to_tensor(loss, a.reduction, loss_type(a)),
          with_terms ? to_tensor(recon_term, a.reduction, recon_type(a)) : Tensor(),
          with_terms ? to_tensor(kl_term, a.reduction, kl_type(a)) : Tensor(), gradients};
}

Gradients gradient(const LikelihoodArguments& a, const Tensor& upstream, int64_t output_mask) {
  const Doubles rows = read_doubles(upstream);
  // One number for all rows is a factor as the forward pass has it, of the derivatives before the weights.
  if (!rows.empty() && upstream.stride(0) == 0) return run(a, output_mask, rows[0], nullptr, nullptr);
  return run(a, output_mask, 1, rows.data(), nullptr);
}

std::tuple<Tensor, Tensor, Tensor> backward_(const ElboArguments& a, const OptionalTensor& gradient,
                                             at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                             const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                             bool to_kl) {
  const int64_t batch = a.recon.size(0);
  if (gradient || !parameter_gradients.empty()) {
    const Tensor upstream = upstream_of(grad_loss, grad_recon);
    const bool is_done = is_one(upstream);  // the gradients are as the forward pass wrote them
    for (const Tensor& other : parameter_gradients) {
      if (!is_done) other.mul_(upstream);
    }
    if (is_done || !gradient) {
      // nothing is left to do
    } else if (at::elementSize(a.recon.scalar_type()) == 2) {
      // 16-bit values were rounded before the factor came (a loss scale, say): computing again loses nothing.
      LikelihoodTensors tensors(a);
      tensors.gradient = *gradient;
      run(a, tensors, mean_of(a), read_doubles(upstream.expand({batch})).data(), nullptr);
    } else {
      c10::DimVector sizes(upstream.dim() == 0 ? 0 : size_t(a.recon.dim()), 1);
      if (!sizes.empty()) sizes[0] = batch;
      gradient->mul_(upstream.reshape(sizes));
    }
  }
  if (!to_kl) return {};
  const double beta = beta_of(a), mean = mean_of(a);
  const Doubles from_loss = grad_loss ? read_doubles(*grad_loss) : Doubles();
  Doubles out = grad_kl ? read_doubles(*grad_kl) : Doubles(from_loss.size(), 0.0);
  for (size_t i = 0; i < out.size(); ++i) out[i] = mean * kl_upstream(grad_loss ? from_loss[i] : 0, out[i], beta);
  if (!a.mu) return {Tensor(), Tensor(), to_tensor(out, a.reduction, kl_type(a))};
  // In the KL's type, as it would come from outside.
  if (kl_type(a) == at::kFloat) std::transform(out.begin(), out.end(), out.begin(), [](double x) { return float(x); });
  if (a.reduction != kNone) out.assign(size_t(batch), out[0]);
  return std::tuple_cat(divergence_backward(a.posterior(), out), std::tuple<Tensor>());
}

}  // namespace

extern const ObjectiveFunctions kObjective;
const ObjectiveFunctions kObjective = {.forward = forward, .gradient = gradient, .backward_ = backward_};

}  // namespace cpu

TORCH_LIBRARY_IMPL(pyvae, CPU, m) { implement_objective<cpu::kObjective>(m, at::kCPU); }

}  // namespace pyvae
