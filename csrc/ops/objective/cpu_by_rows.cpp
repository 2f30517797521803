#include "ops/objective/cpu_by_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/dtypes.h"
#include "ops/layout.h"
#include "ops/objective/cpu_share.h"

namespace pyvae {
namespace cpu {

Gradients run_by_rows(const LikelihoodArguments& a, int64_t output_mask, double factor, const double* upstream,
                      Doubles* sums) {
  const int64_t rows = a.recon.size(0);
  Shape shape{};
  shape.rows = rows;
  const ParameterGradients gradients(a, output_mask, Groups(shape, /*with_columns=*/true).count, recon_type(a));
  LikelihoodTensors tensors(a);
  if (is_set(output_mask, kGradRecon)) tensors.gradient = empty_output(tensors.recon, a.recon.scalar_type());

  Objective call{};
  for (int k = 0; k < kMaxParameters; ++k) {
    tensors.parameter_gradients[k] = gradients.elements[k];
    call.row_sums[k] = gradients.row_sums[k], call.column_sums[k] = gradients.column_sums[k];
  }
  tensors.lay_out(a, call, /*in_order=*/gradients.with_columns());
  call.factor = factor;
  call.upstream = upstream;
  if (sums) sums->assign(rows, 0.0);
  call.sums = sums ? sums->data() : nullptr;
  Doubles library;
  if (a.log_library) library = read_doubles(*a.log_library), call.log_library = library.data();
  call.library_gradient = gradients.library;

  const int64_t count = Groups(call.shape, gradients.with_columns()).count;
  const int64_t chunks = std::max<int64_t>(1, a.recon.numel() / kChunk / std::max<int64_t>(1, count));  // of a group
  const auto kernel = kernels(call.in_double).objective_by_rows;
  const int64_t scratch = call.softmax && call.gradient.data ? call.shape.features : 0;
  share(a, count, std::max<int64_t>(1, kByRowsGrain / chunks), [&](int64_t begin, int64_t end) {
    const Tensor derivatives = at::empty({scratch}, call.in_double ? at::kDouble : at::kFloat);
    return kernel(call, begin, end, derivatives.mutable_data_ptr());
  });

  Gradients out = {tensors.gradient};
  gradients.finish(out);
  return out;
}

}  // namespace cpu
}  // namespace pyvae
