// The decoder side without data: shapes and dtypes of results, for compilers and meta tensors.
#include "ops/layout.h"
#include "ops/objective/implement.h"

namespace pyvae {

namespace {

Gradients empty_gradients(const LikelihoodArguments& a, int64_t output_mask) {
  // For a broadcast parameter, the sums are a new tensor.
  const auto of = [&a](const Tensor& parameter) {
    const bool whole = parameter.sym_sizes() == a.recon.sym_sizes();
    return whole ? empty_like_operand(parameter) : at::empty_symint(parameter.sym_sizes(), parameter.options());
  };
  Gradients out;
  if (is_set(output_mask, kGradRecon)) out[kGradRecon] = empty_like_operand(a.recon);
  if (is_set(output_mask, kGradLogLibrary)) out[kGradLogLibrary] = of(*a.log_library);
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    const int64_t place = kGradParameter + int64_t(k);
    if (is_set(output_mask, place)) out[place] = of(*a.parameters[k]);
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Gradients> forward(const ElboArguments& a, int64_t output_mask, TermOutputs) {
  return {empty_reduced(a.recon, a.reduction, loss_type(a)), empty_reduced(a.recon, a.reduction, recon_type(a)),
          empty_reduced(a.recon, a.reduction, kl_type(a)), empty_gradients(a, output_mask)};
}

std::tuple<Tensor, Gradients> elements(const LikelihoodArguments& a, int64_t output_mask) {
  return {empty_like_operand(a.recon, a.recon.options().dtype(recon_type(a))), empty_gradients(a, output_mask)};
}

Gradients gradient(const LikelihoodArguments& a, const Tensor&, int64_t output_mask) {
  return empty_gradients(a, output_mask);
}

std::tuple<Tensor, Tensor, Tensor> backward_(const ElboArguments& a, const OptionalTensor&, at::TensorList,
                                             const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                                             bool to_kl) {
  if (!to_kl) return {};
  if (a.mu) return {empty_like_operand(*a.mu), empty_like_operand(*a.scale), Tensor()};
  return {Tensor(), Tensor(), empty_reduced(a.recon, a.reduction, kl_type(a))};
}

}  // namespace

extern const ObjectiveFunctions kObjectiveOnMeta;
const ObjectiveFunctions kObjectiveOnMeta = {
    .forward = forward, .elements = elements, .gradient = gradient, .backward_ = backward_};

TORCH_LIBRARY_IMPL(pyvae, Meta, m) { implement_objective<kObjectiveOnMeta>(m, at::kMeta); }

}  // namespace pyvae
