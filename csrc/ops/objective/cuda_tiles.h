// Decoder side on CUDA: a call's tensors and gradients, and the calls that use tiles (cuda/kernels.h).
#pragma once

#include "ops/cuda/tensors.h"
#include "ops/objective/gradients.h"

namespace pyvae {
namespace cuda {

// A call's tensors and the gradients in the output mask.
struct GradientTensors : LikelihoodTensors {
  ParameterGradients by_parameter;
  bool keeps;   // kKept is in the mask
  Tensor kept;  // bytes; undefined until the call has run

  GradientTensors(const LikelihoodArguments& a, int64_t output_mask, bool with_elements = false);
  void lay_out(const LikelihoodArguments& a, ObjectiveOperands& out) const;
  Gradients finish() const;
};

// Whether the call uses tiles: counts, and likelihoods with parameters.
bool goes_by_tiles(const LikelihoodArguments& a);

// Launches the stages that the call needs.
void forward_by_tiles(Call& call, const ElboArguments& a, GradientTensors& tensors, const LossTerms& terms,
                      const Tensor& kl, bool by_row);  // kl: per row, or the sum; undefined: 0
// Computes only the gradients, times upstream [B] (undefined: 1), and the elements if `tensors` has a buffer for them.
void gradients_by_tiles(Call& call, const LikelihoodArguments& a, GradientTensors& tensors,
                        const Tensor& upstream = Tensor());

// Parts of one allocation, each aligned for vectors: buffers that one stage writes and the next one reads.
class Scratch {
 public:
  void want(void*& pointer, int64_t count, int64_t bytes_each) {
    pieces_.emplace_back(&pointer, size_);
    size_ += (count * bytes_each + kAligned - 1) / kAligned * kAligned;
  }
  void allocate(const Tensor& like);        // on the tensor's device
  void take_over(const Tensor& allocated);  // instead: reuses the allocation of a call that wanted the same
  const Tensor& memory() const { return memory_; }
  bool is_empty() const { return pieces_.empty(); }

 private:
  void give_out();
  static constexpr int64_t kAligned = 16;
  c10::SmallVector<std::pair<void**, int64_t>, 8> pieces_;
  int64_t size_ = 0;
  Tensor memory_;
};

// Sums per column that were computed for an upstream gradient of 1, while each row has its own. The launch that
// rescales all other gradients compares the rows' upstream gradients. One more launch multiplies the sums in place, or
// computes them again.
class ColumnSums {
 public:
  // `sums`: per parameter; undefined: none. `kept`: the gradients' kKept. upstream: [B].
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
