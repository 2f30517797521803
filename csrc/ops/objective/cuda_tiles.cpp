#include "ops/objective/cuda_tiles.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "ops/codes.h"

namespace pyvae {
namespace cuda {

GradientTensors::GradientTensors(const LikelihoodArguments& a, int64_t output_mask, bool with_elements)
    : LikelihoodTensors(a), by_parameter(a, output_mask, Partials::whole_sums()), keeps(is_set(output_mask, kKept)) {
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
  out[kKept] = kept;
  return out;
}

void Scratch::allocate(const Tensor& like) {
  memory_ = at::empty({size_}, like.options().dtype(at::kByte));
  give_out();
}

void Scratch::take_over(const Tensor& allocated) {
  TORCH_INTERNAL_ASSERT(allocated.defined() && allocated.numel() == size_, "of another call");
  memory_ = allocated;
  give_out();
}

void Scratch::give_out() {
  for (const auto& [pointer, at] : pieces_) *pointer = memory_.mutable_data_ptr<uint8_t>() + at;
}

bool goes_by_tiles(const LikelihoodArguments& a) {
  const Trait& trait = kTraits[a.likelihood];
  return trait.is_count || trait.parameters > 0;
}

namespace {

Result result_if_any(const Tensor& tensor) { return tensor.defined() ? result(tensor) : Result{}; }

// Chooses the tilings of a call; needs its layout.
void cut(TiledObjective& o) {
  const int64_t rows = o.shape.rows, features = o.shape.features;
  o.tiling = Tiling(rows, features, most_tile_vectors(kTraits[o.likelihood].parameters, o.in_double ? 8 : 4));
  o.finish_tiling = Tiling(rows, features, kFinishVectors);
  o.normalizer_tiling = NormalizerTiling(features);
}

// Requests scratch memory for the outputs of the `prepare` stage.
void want_prepared(TiledObjective& o, const LikelihoodTensors& tensors, Scratch& scratch) {
  const int64_t rows = o.shape.rows, features = o.shape.features, bytes = o.in_double ? 8 : 4;
  const Tensor& parameter = tensors.parameters[0];
  if (kTraits[o.likelihood].first > 0 && (parameter.stride(0) == 0 || rows == 1)) {
    scratch.want(o.prepared, kTraits[o.likelihood].first * features, bytes);
  }
  if (o.softmax) scratch.want(o.normalizers, rows * o.normalizer_tiling.parts, bytes);
}

void launch_stage(Call& call, TiledObjective& o, Stage stage) {
  o.stage = stage;
  call.launch(o);
}

// Runs a call that has its layout and inputs, but not yet its sums and partial results per row.
void run(Call& call, GradientTensors& tensors, TiledObjective& o) {
  const int64_t rows = o.shape.rows, features = o.shape.features, bytes = o.in_double ? 8 : 4;
  const ParameterGradients& by_parameter = tensors.by_parameter;
  cut(o);
  o.library_gradient = result_if_any(by_parameter.buffer(kGradLogLibrary));

  Scratch scratch, to_keep;
  want_prepared(o, tensors, tensors.keeps ? to_keep : scratch);
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
  const bool through_softmax = o.softmax && o.gradient.data;
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
  if (!scratch.is_empty()) scratch.allocate(tensors.recon);
  if (tensors.keeps) to_keep.allocate(tensors.recon), tensors.kept = to_keep.memory();

  if (rows > 0 && (o.normalizers || (o.prepared && features > 0))) launch_stage(call, o, Stage::kPrepare);
  if (rows > 0) launch_stage(call, o, Stage::kTiles);
  if (o.with_terms || o.row_parts || by_parameter.with_columns()) launch_stage(call, o, Stage::kFinish);
}

}  // namespace

void forward_by_tiles(Call& call, const ElboArguments& a, GradientTensors& tensors, const LossTerms& terms,
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

void gradients_by_tiles(Call& call, const LikelihoodArguments& a, GradientTensors& tensors, const Tensor& upstream) {
  TiledObjective o{};
  tensors.lay_out(a, o);
  const Tensor library = as_real(a.log_library), rows = upstream.defined() ? as_real(upstream) : Tensor();
  o.log_library = per_row(library), o.upstream = per_row(rows);
  run(call, tensors, o);
}

ColumnSums::ColumnSums(const LikelihoodArguments& a, const Tensor (&sums)[kMaxParameters], const Tensor& kept,
                       const Tensor& upstream)
    : tensors_(a), library_(as_real(a.log_library)), upstream_(as_real(upstream)) {
  tensors_.lay_out(a, o_, /*in_order=*/true);
  o_.log_library = per_row(library_), o_.upstream = per_row(upstream_);
  cut(o_);
  want_prepared(o_, tensors_, kept_);
  kept_.take_over(kept);
  for (int k = 0; k < kMaxParameters; ++k) {
    if (!sums[k].defined()) continue;
    o_.parameter_sums[k] = ParameterSum::kPerColumn, o_.column_sums[k] = result(sums[k]);
    scratch_.want(o_.column_parts[k], o_.tiling.groups * o_.shape.features, o_.in_double ? 8 : 4);
  }
  Comparison& c = o_.comparison;
  c.rows = o_.shape.rows, c.slices = o_.tiling.slices;
  constexpr int64_t kEach = kThreads * kComparedRows;
  c.blocks = std::min((c.rows + kEach - 1) / kEach, kMostComparing);
  void *differ, *tickets;
  scratch_.want(differ, c.blocks * (kThreads / kWarp), sizeof(int));
  scratch_.want(tickets, c.slices, sizeof(unsigned));
  scratch_.allocate(tensors_.recon);
  c.differ = static_cast<int*>(differ), c.tickets = static_cast<unsigned*>(tickets);
}

void ColumnSums::launch(Call& call) { launch_stage(call, o_, Stage::kTiles); }

}  // namespace cuda
}  // namespace pyvae
