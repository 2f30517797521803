#include "ops/objective/cuda_tiles.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/codes.h"

namespace pyvae {
namespace cuda {

GradientTensors::GradientTensors(const LikelihoodArguments& a, int64_t output_mask, bool with_elements)
    : LikelihoodTensors(a), by_parameter(a, output_mask, Partials::whole_sums()) {
  if (with_elements) elements = at::empty_like(recon, recon.options().dtype(recon_type(a)));
  if (is_set(output_mask, kGradRecon)) gradient = at::empty_like(recon);
  for (int k = 0; k < kMaxParameters; ++k) parameter_gradients[k] = by_parameter.elements[k];
}

void GradientTensors::lay_out(const LikelihoodArguments& a, ObjectiveOperands& out) const {
  LikelihoodTensors::lay_out(a, out, /*in_order=*/has_column_parameter(a));
}

Gradients GradientTensors::finish() const {
  Gradients out = {gradient};
  by_parameter.finish(out);
  return out;
}

bool goes_by_tiles(const LikelihoodArguments& a) {
  const Trait& trait = kTraits[a.likelihood];
  return trait.is_count || trait.parameters > 0;
}

namespace {

Result result_if_any(const Tensor& tensor) { return tensor.defined() ? result(tensor) : Result{}; }

// What stages leave for the next one: pieces of one allocation, each aligned for vectors.
class Scratch {
 public:
  explicit Scratch(const Tensor& like) : options_(like.options().dtype(at::kByte)) {}

  void want(void*& pointer, int64_t count, int64_t bytes_each) {
    pieces_.emplace_back(&pointer, size_);
    size_ += (count * bytes_each + kAligned - 1) / kAligned * kAligned;
  }
  void allocate() {
    if (pieces_.empty()) return;
    memory_ = at::empty({size_}, options_);
    for (const auto& [pointer, at] : pieces_) *pointer = memory_.mutable_data_ptr<uint8_t>() + at;
  }

 private:
  static constexpr int64_t kAligned = 16;
  at::TensorOptions options_;
  c10::SmallVector<std::pair<void**, int64_t>, 8> pieces_;
  int64_t size_ = 0;
  Tensor memory_;
};

// Of a call that is laid out but for its sums and what comes from the rows.
void run(Call& call, const GradientTensors& tensors, TiledObjective& o) {
  const int64_t rows = o.shape.rows, features = o.shape.features, bytes = o.in_double ? 8 : 4;
  const ParameterGradients& by_parameter = tensors.by_parameter;
  o.tiling = Tiling(rows, features, most_tile_vectors(kTraits[o.likelihood].parameters, int(bytes)));
  o.finish_tiling = Tiling(rows, features, kFinishVectors);
  o.normalizer_tiling = NormalizerTiling(features);
  o.library_gradient = result_if_any(by_parameter.buffer(kGradLogLibrary));

  Scratch scratch(tensors.recon);
  bool with_rows = false;
  for (int k = 0; k < kMaxParameters; ++k) {
    const Tensor& sums = by_parameter.buffer(kGradParameter + k);
    if (by_parameter.column_sums[k]) {
      o.parameter_sums[k] = ParameterSum::kPerColumn, o.column_sums[k] = result(sums);
      scratch.want(o.column_parts[k], o.tiling.groups * features, bytes);
    } else if (by_parameter.row_sums[k]) {
      o.parameter_sums[k] = ParameterSum::kPerRow, o.row_sums[k] = result(sums);
      with_rows = true;
    }
  }
  const Tensor& parameter = tensors.parameters[0];
  if (kTraits[o.likelihood].first > 0 && (parameter.stride(0) == 0 || rows == 1)) {
    scratch.want(o.prepared, kTraits[o.likelihood].first * features, bytes);
  }
  const bool through_softmax = o.softmax && o.gradient.data;
  if (o.softmax) scratch.want(o.normalizers, rows * o.normalizer_tiling.parts, bytes);
  o.row_kinds = with_rows ? kRowSums : 2;
  if (through_softmax || o.library_gradient.data || with_rows || (o.with_terms && o.by_row)) {
    scratch.want(o.row_parts, rows * o.tiling.parts() * o.row_kinds, bytes);
  }
  if (o.with_terms && !o.by_row) scratch.want(o.totals, 2 * o.tiling.blocks(), sizeof(double));
  if (through_softmax) {
    o.waiting = o.gradient;
    const int8_t type = o.in_double ? kTypeCode<double> : kTypeCode<float>;
    if (o.gradient.type != type) {
      o.waiting.type = type, o.waiting.contiguous = true;
      int64_t step = 1;
      for (int d = o.shape.dims - 1; d >= 0; step *= o.shape.sizes[d--]) o.waiting.strides[d] = step;
      scratch.want(o.waiting.data, rows * features, bytes);
    }
  }
  scratch.allocate();

  const auto launch = [&](Stage stage) {
    o.stage = stage;
    call.launch(o);
  };
  if (rows > 0 && (o.normalizers || (o.prepared && features > 0))) launch(Stage::kPrepare);
  if (rows > 0) launch(Stage::kTiles);
  if (o.with_terms || o.row_parts || by_parameter.with_columns()) launch(Stage::kFinish);
}

}  // namespace

void forward_by_tiles(Call& call, const ElboArguments& a, const GradientTensors& tensors, const LossTerms& terms,
                      const Tensor& kl, bool by_row) {
  TiledObjective o{};
  static_cast<LossTerms&>(o) = terms;
  tensors.lay_out(a, o);
  const Tensor library = as_real(a.log_library);
  o.log_library = per_row(library);
  o.factor = terms.mean;
  o.with_terms = true, o.by_row = by_row;
  (kl.defined() && kl.dim() > 0 ? o.divergence : o.divergence_sum) = per_row(kl);
  run(call, tensors, o);
}

void gradients_by_tiles(Call& call, const LikelihoodArguments& a, const GradientTensors& tensors,
                        const Tensor& upstream) {
  TiledObjective o{};
  tensors.lay_out(a, o);
  const Tensor library = as_real(a.log_library), rows = upstream.defined() ? as_real(upstream) : Tensor();
  o.log_library = per_row(library), o.upstream = per_row(rows);
  run(call, tensors, o);
}

}  // namespace cuda
}  // namespace pyvae
