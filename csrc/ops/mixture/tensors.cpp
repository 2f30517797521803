#include "ops/mixture/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include "ops/dtypes.h"
#include "ops/layout.h"

namespace pyvae {

MixtureTensors::MixtureTensors(const MixtureArguments& a, bool elements, MixtureOperands& out)
    : type(density_type(a)), z(made(a.z)), mean(made(a.mean)), scale(made(a.scale)) {
  out.groups = a.mean.dim() == 3 ? a.mean.size(0) : 1;
  out.components = a.mean.size(-2), out.features = a.mean.size(-1);
  out.rows = 1;
  for (int64_t d = 0; d < a.z.dim() - 1; ++d) out.rows *= a.z.size(d);
  out.in_double = type == at::kDouble;
  out.elements = elements;
  out.scale_kind = int(a.scale_kind);
  std::tie(out.low, out.high) = bounds_of(a.low, a.high);
  out.z = z.const_data_ptr(), out.mean = mean.const_data_ptr(), out.scale = scale.const_data_ptr();
  if (!a.logits) return;
  log_weight = at::log_softmax(a.logits->to(at::kDouble), -1).contiguous();
  out.log_weight = log_weight.const_data_ptr<double>();
}

void lay_out_normalizers(const Tensor& normalizers, MixtureOperands& out) {
  out.top = normalizers.select(0, 0).data_ptr(), out.sum = normalizers.select(0, 1).data_ptr();
}

std::tuple<Tensor, Tensor> empty_values(const MixtureArguments& a, bool elements, bool with_normalizers,
                                        at::ScalarType type) {
  const at::TensorOptions options = a.z.options().dtype(type);
  c10::DimVector sizes(a.z.sizes().slice(0, size_t(a.z.dim() - (elements ? 0 : 1))));
  const Tensor values = at::empty(sizes, options);
  sizes.insert(sizes.begin(), 2);
  return {values, with_normalizers && has_normalizers(a) ? at::empty(sizes, options) : at::empty({0}, options)};
}

}  // namespace pyvae
