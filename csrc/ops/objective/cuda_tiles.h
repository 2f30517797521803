// Decoder side on CUDA: a call's tensors and its gradients', and the calls that go by tiles (cuda/kernels.h).
#pragma once

#include "ops/cuda/tensors.h"
#include "ops/objective/gradients.h"

namespace pyvae {
namespace cuda {

// A call's tensors with the gradients of the mask among them.
struct GradientTensors : LikelihoodTensors {
  ParameterGradients by_parameter;
  bool keeps;   // kKept is in the mask
  Tensor kept;  // bytes; undefined until the call has run

  GradientTensors(const LikelihoodArguments& a, int64_t output_mask, bool with_elements = false);
  void lay_out(const LikelihoodArguments& a, ObjectiveOperands& out) const;
  Gradients finish() const;
};

// Counts, and likelihoods with parameters.
bool goes_by_tiles(const LikelihoodArguments& a);

// Launches the stages that a call has work for.
void forward_by_tiles(Call& call, const ElboArguments& a, GradientTensors& tensors, const LossTerms& terms,
                      const Tensor& kl, bool by_row);  // kl: of each row, or their sum; undefined: 0
// The gradients alone, times upstream [B], or undefined: 1; and the elements, if `tensors` has a place for them.
void gradients_by_tiles(Call& call, const LikelihoodArguments& a, GradientTensors& tensors,
                        const Tensor& upstream = Tensor());

// Pieces of one allocation, each aligned for vectors: what stages leave for the next one.
class Scratch {
 public:
  void want(void*& pointer, int64_t count, int64_t bytes_each) {
    pieces_.emplace_back(&pointer, size_);
    size_ += (count * bytes_each + kAligned - 1) / kAligned * kAligned;
  }
  void allocate(const Tensor& like);        // on its device
  void take_over(const Tensor& allocated);  // instead, what a call with the same wants has allocated
  const Tensor& memory() const { return memory_; }
  bool is_empty() const { return pieces_.empty(); }

 private:
  void give_out();
  static constexpr int64_t kAligned = 16;
  c10::SmallVector<std::pair<void**, int64_t>, 8> pieces_;
  int64_t size_ = 0;
  Tensor memory_;
};

// Sums per column that were made for an upstream gradient of 1, where each row has its own: the launch that rescales
// all other gradients compares these, and one more launch multiplies the sums, in place, or makes them again.
class ColumnSums {
 public:
  // `sums`: by parameter; undefined: none. `kept`: the gradients' kKept. upstream: [B].
  ColumnSums(const LikelihoodArguments& a, const Tensor (&sums)[kMaxParameters], const Tensor& kept,
             const Tensor& upstream);
  ColumnSums(const ColumnSums&) = delete;

  const Comparison& comparison() const { return o_.comparison; }
  void launch(Call& call);

 private:
  LikelihoodTensors tensors_;
  Tensor library_, upstream_;
  TiledObjective o_{};
  Scratch kept_, scratch_;
};

}  // namespace cuda
}  // namespace pyvae
