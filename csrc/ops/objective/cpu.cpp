// Decoder side on the CPU: allocate and run. The forward pass already computes the gradient.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>

#include "math/elbo.h"
#include "ops/cpu/tensors.h"
#include "ops/dtypes.h"
#include "ops/latent/cpu.h"
#include "ops/layout.h"
#include "ops/objective/implement.h"

namespace pyvae {
namespace cpu {

namespace {

// Raises an error if the kernel found illegal data.
void check_data(const LikelihoodArguments& a, bool legal) {
  const Trait& trait = kTraits.values[a.likelihood];
  TORCH_CHECK_VALUE(
      legal, "pyvae.elbo_loss, elbo_terms or reconstruction_loss, likelihood='", kLikelihoodNames[a.likelihood], "': ",
      trait.is_count         ? "`target` must hold counts >= 0, but holds negative values"
      : trait.is_probability ? "`recon` and `target` must lie in [0, 1], but hold values outside; logits go with "
                               "likelihood='bernoulli_logits'"
                             : "`target` must lie in [0, 1], but holds values outside",
      trait.is_count ? "" : "; bytes are to be divided by 255, and real numbers go with likelihood='gaussian'");
}

// The sums of a call's values: `per_row` for each row, or sums of everything.
struct ValueSums {
  bool by_row = false;
  Doubles sums;

  Doubles reduced(int64_t rows, int64_t reduction) && {
    if (by_row && int64_t(sums.size()) == rows) return std::move(sums);
    const int64_t of = by_row ? rows : 1;
    Doubles out = reduce_rows(of, of > 0 ? int64_t(sums.size()) / of : 0, sums.data(), by_row ? reduction : kSum);
    if (!by_row && reduction == kBatchMean) out[0] /= double(rows);
    return out;
  }
};

// Runs the kernel. Computes sums of the values if `value` is given, and the gradients that have a buffer, times factor
// times upstream [rows]; a null upstream is 1.
void run(const LikelihoodArguments& a, const LikelihoodTensors& tensors, const ParameterGradients& parameters,
         double factor, const double* upstream, ValueSums* value) {
  Objective call{};
  tensors.lay_out(a, call, /*in_order=*/parameters.with_columns());
  call.factor = factor;
  call.upstream = upstream;
  for (int k = 0; k < kMaxParameters; ++k) {
    call.by_parameter[k] = {static_cast<double*>(parameters.row_sums[k]), parameters.all_sums[k]};
    call.column_sums[k] = parameters.column_sums[k];
  }
  Doubles library;
  if (a.log_library) library = read_doubles(*a.log_library), call.log_library = library.data();
  call.library_gradient = static_cast<double*>(parameters.library);
  const Chunks chunks(call.shape);
  if (value) {
    value->sums.resize_for_overwrite(size_t(value->by_row ? chunks.partials() : chunks.count));
    (value->by_row ? call.value.rows : call.value.chunks) = value->sums.data();
  }
  if (a.recon.numel() == 0) {
    if (value) std::fill(value->sums.begin(), value->sums.end(), 0.0);
    return;
  }

  const Kernels& kernels = cpu::kernels(call.in_double);
  const Units units = call.units();
  const int64_t chunk_grain = kTraits[a.likelihood].is_count ? kCountsGrain : kObjectiveGrain;
  const int64_t grain = std::max<int64_t>(1, chunk_grain / units.chunks_each);
  const int64_t scratch = kernels.objective_scratch(call);
  std::atomic<bool> legal{true};
  at::parallel_for(0, units.count, grain, [&](int64_t begin, int64_t end) {
    Tensor room;
    if (scratch > 0) room = at::empty({scratch}, call.in_double ? at::kDouble : at::kFloat);
    if (!kernels.objective(call, begin, end, scratch > 0 ? room.mutable_data_ptr() : nullptr)) legal = false;
  });
  check_data(a, legal);
}

// Computes the sums of the values and the elements' values, if requested, and the gradients in the mask times factor
// times upstream [rows].
Gradients run(const LikelihoodArguments& a, int64_t output_mask, double factor, const double* upstream,
              ValueSums* value, Tensor* elements = nullptr) {
  Shape shape{};
  shape.rows = a.recon.size(0), shape.features = shape.rows > 0 ? a.recon.numel() / shape.rows : 0;
  const Chunks chunks(shape);
  const ParameterGradients parameters(
      a, output_mask,
      {chunks.per_row, chunks.count, Units(chunks, has_softmax(a), /*with_columns=*/true).count, recon_type(a)});
  LikelihoodTensors tensors(a);
  if (is_set(output_mask, kGradRecon)) tensors.gradient = empty_output(tensors.recon, a.recon.scalar_type());
  for (int k = 0; k < kMaxParameters; ++k) tensors.parameter_gradients[k] = parameters.elements[k];
  if (elements) *elements = tensors.elements = empty_output(tensors.recon, recon_type(a));
  run(a, tensors, parameters, factor, upstream, value);
  Gradients out = {tensors.gradient};
  parameters.finish(out);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t output_mask, TermOutputs terms) {
  const bool with_terms = terms != TermOutputs::kSkip;
  const int64_t rows = a.recon.size(0);
  ValueSums value{a.reduction == kNone, {}};
  const Gradients gradients = run(a, output_mask, mean_of(a), nullptr, &value);
  const Doubles recon_term = std::move(value).reduced(rows, a.reduction);

  Doubles kl_term;
  if (a.mu) {
    kl_term = divergence(a.posterior(), a.reduction);
  } else if (a.kl) {
    kl_term = reduce_rows(rows, 1, read_doubles(*a.kl).data(), a.reduction);
  } else if (with_terms) {
    kl_term = reduce_rows(rows, 0, nullptr, a.reduction);  // zeros; without rows the mean is NaN
  }
  const double beta = beta_of(a);
  const auto loss = [beta, recon = recon_term.data(), kl = kl_term.data()](size_t i) {
    return negative_elbo(recon[i], kl[i], beta);
  };
  return {kl_term.empty() ? to_tensor(recon_term, a.reduction, loss_type(a))
                          : to_tensor(recon_term.size(), loss, a.reduction, loss_type(a)),
          with_terms ? to_tensor(recon_term, a.reduction, recon_type(a)) : Tensor(),
          with_terms ? to_tensor(kl_term, a.reduction, kl_type(a)) : Tensor(), gradients};
}

std::tuple<Tensor, Gradients> elements(const LikelihoodArguments& a, int64_t output_mask) {
  Tensor values;
  Gradients gradients = run(a, output_mask, 1, nullptr, nullptr, &values);
  return {values, gradients};
}

Gradients gradient(const LikelihoodArguments& a, const Tensor& upstream, int64_t output_mask) {
  const Doubles rows = read_doubles(upstream);
  // A single upstream number is passed as `factor`, as in the forward pass: it multiplies the derivatives before the
  // weights.
  if (!rows.empty() && upstream.stride(0) == 0) return run(a, output_mask, rows[0], nullptr, nullptr);
  return run(a, output_mask, 1, rows.data(), nullptr);
}

std::tuple<Tensor, Tensor, Tensor> backward_(const ElboArguments& a, const OptionalTensor& gradient,
                                             at::TensorList parameter_gradients, const OptionalTensor& grad_loss,
                                             const OptionalTensor& grad_recon, const OptionalTensor& grad_kl,
                                             bool to_kl) {
  const int64_t batch = a.recon.size(0);
  if (gradient || !parameter_gradients.empty()) {
    const Tensor upstream = as_scalar_if_uniform(upstream_of(grad_loss, grad_recon));
    const bool is_done = is_one(upstream);  // the gradients need no scaling
    for (const Tensor& other : parameter_gradients) {
      if (!is_done) other.mul_(aligned_rows(upstream, other));
    }
    if (is_done || !gradient) {
      // nothing to do
    } else if (at::elementSize(a.recon.scalar_type()) == 2) {
      // The 16-bit values were rounded before the factor (a loss scale, say) was known. Computing them again loses
      // nothing.
      LikelihoodTensors tensors(a);
      tensors.gradient = *gradient;
      run(a, tensors, ParameterGradients(a, /*output_mask=*/0, {}), mean_of(a),
          read_doubles(upstream.expand({batch})).data(), nullptr);
    } else {
      gradient->mul_(aligned_rows(upstream, *gradient));
    }
  }
  if (!to_kl) return {};
  const double beta = beta_of(a), mean = mean_of(a);
  const Doubles from_loss = grad_loss ? read_doubles(*grad_loss) : Doubles();
  Doubles out = grad_kl ? read_doubles(*grad_kl) : Doubles(from_loss.size(), 0.0);
  for (size_t i = 0; i < out.size(); ++i) out[i] = mean * kl_upstream(grad_loss ? from_loss[i] : 0, out[i], beta);
  if (!a.mu) return {Tensor(), Tensor(), to_tensor(out, a.reduction, kl_type(a))};
  // Rounded to the KL's dtype, as a gradient from outside would be.
  if (kl_type(a) == at::kFloat) std::transform(out.begin(), out.end(), out.begin(), [](double x) { return float(x); });
  if (a.reduction != kNone) out.assign(size_t(batch), out[0]);
  return std::tuple_cat(divergence_backward(a.posterior(), out), std::tuple<Tensor>());
}

}  // namespace

extern const ObjectiveFunctions kObjective;
const ObjectiveFunctions kObjective = {
    .forward = forward, .elements = elements, .gradient = gradient, .backward_ = backward_, .compares_rows = true};

}  // namespace cpu

TORCH_LIBRARY_IMPL(pyvae, CPU, m) { implement_objective<cpu::kObjective>(m, at::kCPU); }

}  // namespace pyvae
