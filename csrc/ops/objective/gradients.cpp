#include "ops/objective/gradients.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/broadcast.h"
#include "ops/dtypes.h"
#include "ops/layout.h"

namespace pyvae {

namespace {

enum class Form { kElements, kAll, kRows, kColumns };

// What the kernels sum a parameter's gradient over; the rest is summed at the end.
Form form_of(const Tensor& parameter, const Tensor& recon) {
  const int64_t features = std::min(parameter.dim(), recon.dim() - 1);  // feature dimensions of the parameter
  const auto sizes = parameter.sizes();
  const bool batched = parameter.dim() == recon.dim() && parameter.size(0) != 1;
  if (std::all_of(sizes.end() - features, sizes.end(), [](int64_t size) { return size == 1; })) {
    return batched ? Form::kRows : Form::kAll;
  }
  return batched || recon.size(0) == 1 ? Form::kElements : Form::kColumns;
}

// The form that the kernel writes: elements, if it makes no such sums; for kAll, at least sums per row.
Form made_form(Form form, const Partials& partials) {
  if (form == Form::kAll && partials.all == 0) form = Form::kRows;
  const bool is_made = form == Form::kAll    ? partials.all > 0
                       : form == Form::kRows ? partials.per_row > 0
                                             : partials.groups > 0;
  return is_made ? form : Form::kElements;
}

// The dtype of sums. Whole sums, as many as the parameter has elements, have its dtype if that is float or double.
at::ScalarType sum_type(const Tensor& parameter, int64_t sums, bool whole) {
  const at::ScalarType type = parameter.scalar_type();
  return whole && parameter.numel() == sums && (type == at::kFloat || type == at::kDouble) ? type : at::kDouble;
}

}  // namespace

bool has_column_parameter(const LikelihoodArguments& a) {
  return std::any_of(a.parameters.begin(), a.parameters.end(),
                     [&](const OptionalTensor& parameter) { return form_of(*parameter, a.recon) == Form::kColumns; });
}

bool are_whole(const LikelihoodArguments& a, int64_t output_mask) {
  for (size_t k = 0; k < a.parameters.size(); ++k) {
    const Tensor& parameter = *a.parameters[k];
    const bool is_summed =
        is_set(output_mask, kGradParameter + int64_t(k)) && form_of(parameter, a.recon) == Form::kColumns;
    if (is_summed && parameter.numel() * a.recon.size(0) != a.recon.numel()) return false;
  }
  return true;
}

GradientOutputs to_outputs(const Gradients& gradients, const LikelihoodArguments& a) {
  const auto output = [&](int64_t place) {
    return gradients[place].defined() ? gradients[place] : a.recon.new_empty({0});
  };
  std::vector<Tensor> parameters;
  for (size_t k = 0; k < a.parameters.size(); ++k) parameters.push_back(output(kGradParameter + int64_t(k)));
  return {output(kGradRecon), std::move(parameters), output(kGradLogLibrary)};
}

Gradients from_outputs(const GradientOutputs& outputs) {
  const auto& [recon, parameters, log_library] = outputs;
  Gradients out = {recon, log_library};
  std::copy(parameters.begin(), parameters.end(), out.begin() + kGradParameter);
  return out;
}

ParameterGradients::ParameterGradients(const LikelihoodArguments& a, int64_t output_mask, const Partials& partials) {
  const auto in_double = a.recon.options().dtype(at::kDouble);
  const int64_t rows = a.recon.size(0), features = rows > 0 ? a.recon.numel() / rows : 0;
  for (int k = 0; k < kMaxParameters; ++k) {
    if (!is_set(output_mask, kGradParameter + k)) continue;
    const Tensor& parameter = *a.parameters[k];
    Part& part = parts_[kGradParameter + k];
    part = {Tensor(), at::DimVector(a.recon.sizes()), parameter};
    const Form form = form_of(parameter, a.recon);
    part.by_row = form == Form::kAll && is_set(output_mask, kKept);
    switch (made_form(form, partials)) {
      case Form::kElements: {
        const bool whole = parameter.sizes() == a.recon.sizes();
        part.buffer = whole ? empty_like_operand(parameter) : at::empty(part.sizes, in_double.dtype(recon_type(a)));
        elements[k] = part.buffer;
        break;
      }
      case Form::kRows:
        std::fill(part.sizes.begin() + 1, part.sizes.end(), 1);
        if (a.recon.dim() > 1) part.sizes.back() = partials.per_row;
        part.buffer = at::empty(part.sizes, in_double.dtype(sum_type(parameter, rows, partials.whole)));
        row_sums[k] = part.buffer.mutable_data_ptr();
        break;
      case Form::kAll:
        std::fill(part.sizes.begin(), part.sizes.end(), 1);
        part.sizes[0] = partials.all;
        part.buffer = at::empty(part.sizes, in_double);
        all_sums[k] = part.buffer.mutable_data_ptr<double>();
        break;
      case Form::kColumns:
        part.sizes[0] = partials.groups;
        part.buffer = at::empty(
            part.sizes, in_double.dtype(partials.whole ? sum_type(parameter, features, true) : partials.column_type));
        column_sums[k] = part.buffer.mutable_data_ptr();
        break;
    }
  }
  if (is_set(output_mask, kGradLogLibrary)) {
    parts_[kGradLogLibrary] = {at::empty({rows}, in_double.dtype(sum_type(*a.log_library, rows, partials.whole))),
                               at::DimVector(a.log_library->sizes()), *a.log_library};
    library = parts_[kGradLogLibrary].buffer.mutable_data_ptr();
  }
  if (a.recon.numel() > 0) return;
  for (Part& part : parts_) {  // no kernel runs
    if (part.buffer.defined()) part.buffer.zero_();
  }
}

bool ParameterGradients::with_columns() const {
  return std::any_of(std::begin(column_sums), std::end(column_sums), [](void* sums) { return sums != nullptr; });
}

void ParameterGradients::finish(Gradients& out) const {
  for (int64_t place = kGradRecon + 1; place < kGradients; ++place) {
    const Part& part = parts_[place];
    if (!part.buffer.defined()) continue;
    if (part.by_row) {
      out[place] = part.buffer.view(part.sizes);
      continue;
    }
    const bool as_it_is = part.buffer.scalar_type() == part.of.scalar_type() && part.buffer.numel() == part.of.numel();
    out[place] = as_it_is ? part.buffer.view(part.of.sizes())
                          : sum_to(part.buffer.view(part.sizes), part.of.sizes(), part.of.scalar_type());
  }
}

}  // namespace pyvae
