// The log density without data: shapes and dtypes of results, for compilers and meta tensors.
#include "ops/dtypes.h"
#include "ops/mixture/implement.h"

namespace pyvae {

namespace {

std::tuple<Tensor, Tensor> forward(const MixtureArguments& a, bool elements, bool with_normalizers) {
  c10::SymDimVector sizes(a.z.sym_sizes().slice(0, size_t(a.z.dim() - (elements ? 0 : 1))));
  const auto options = a.z.options().dtype(density_type(a));
  const Tensor values = at::empty_symint(sizes, options);
  sizes.insert(sizes.begin(), 2);
  return {values, with_normalizers && has_normalizers(a) ? at::empty_symint(sizes, options) : at::empty({0}, options)};
}

MixtureGradients backward(const MixtureArguments& a, const Tensor&, const Tensor&, bool, bool to_mixture) {
  const auto like = [](const Tensor& t) { return at::empty_symint(t.sym_sizes(), t.options()); };
  if (!to_mixture) return {like(a.z), Tensor(), Tensor(), Tensor()};
  return {like(a.z), like(a.mean), like(a.scale), a.logits ? like(*a.logits) : Tensor()};
}

}  // namespace

extern const MixtureFunctions kMixtureOnMeta;
const MixtureFunctions kMixtureOnMeta = {.forward = forward, .backward = backward};

TORCH_LIBRARY_IMPL(pyvae, Meta, m) { implement_mixture<kMixtureOnMeta>(m, at::kMeta); }

}  // namespace pyvae
