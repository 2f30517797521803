// The log density without data: shapes and types of results, for compilers and meta tensors.
#include "ops/dtypes.h"
#include "ops/mixture/implement.h"

namespace pyvae {

namespace {

Tensor forward(const MixtureArguments& a, bool elements) {
  const auto sizes = a.z.sym_sizes().slice(0, size_t(a.z.dim() - (elements ? 0 : 1)));
  return at::empty_symint(sizes, a.z.options().dtype(density_type(a)));
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
