#include "ops/objective/cuda_by_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

namespace pyvae {
namespace cuda {

Gradients run_by_rows(Call& call, const LikelihoodArguments& a, int64_t output_mask, const Tensor& upstream,
                      ObjectiveByRows& o) {
  const int64_t rows = a.recon.size(0);
  ColumnSums columns;
  columns.rows_each = std::max<int64_t>(kColumnRows, (rows + kColumnGroups - 1) / kColumnGroups);
  columns.groups = (rows + columns.rows_each - 1) / columns.rows_each;
  const ParameterGradients gradients(a, output_mask, {/*per_row=*/1, /*all=*/0, columns.groups, at::kDouble});
  LikelihoodTensors tensors(a);
  if (is_set(output_mask, kGradRecon)) tensors.gradient = at::empty_like(tensors.recon);
  for (int k = 0; k < kMaxParameters; ++k) {
    tensors.parameter_gradients[k] = gradients.elements[k];
    o.row_sums[k] = gradients.row_sums[k];
    o.column_sums[k] = static_cast<double*>(gradients.column_sums[k]);
  }
  tensors.lay_out(a, o, /*in_order=*/gradients.with_columns());
  const Tensor library = as_real(a.log_library);
  o.log_library = per_row(library);
  o.upstream = per_row(upstream);
  o.library_gradient = gradients.library;
  Tensor normalizers;
  if (o.softmax && gradients.with_columns()) {
    normalizers = at::empty({rows}, a.recon.options().dtype(at::kDouble));
    o.normalizers = normalizers.mutable_data_ptr<double>();
  }
  if (o.loss.data) o.workspace = call.workspace(std::max<int64_t>(rows, 1));  // null: no terms are wanted
  // Without rows a sum is 0 still; without features each row's is.
  if (rows > 0 || o.partition.rows == 1) call.launch(o);
  if (gradients.with_columns() && a.recon.numel() > 0) {
    columns.objective = o;
    call.launch(columns);
  }
  Gradients out = {tensors.gradient};
  gradients.finish(out);
  return out;
}

}  // namespace cuda
}  // namespace pyvae
