// The gradients of a likelihood: by recon, log_library, and its parameters.
#pragma once

#include <array>
#include <vector>

#include "ops/arguments.h"

namespace pyvae {

// Indices in Gradients, and bits of an output mask. Parameter k is at kGradParameter + k.
enum GradientPlace : int64_t { kGradRecon, kGradLogLibrary, kGradParameter };
constexpr int64_t kGradients = kGradParameter + kMaxParameters;
// One more index, used only by backward_rows_: intermediate results in the device's own form, kept so that sums per
// column can be computed again faster. The bit also requests that sums of everything are left as sums per row, [B, 1,
// ...].
constexpr int64_t kKept = kGradients;
using Gradients = std::array<Tensor, kGradients + 1>;  // undefined if not in the mask

constexpr bool is_set(int64_t output_mask, int64_t place) { return (output_mask >> place & 1) != 0; }

// An operator's outputs (recon's, the parameters', log_library's): empty if not in the mask.
using GradientOutputs = std::tuple<Tensor, std::vector<Tensor>, Tensor>;
GradientOutputs to_outputs(const Gradients& gradients, const LikelihoodArguments& a);
Gradients from_outputs(const GradientOutputs& outputs);

// How many partial sums a device's kernel writes, which are finished later. 0: it writes no such sums, but elements.
struct Partials {
  int64_t per_row = 0;  // sums per row
  int64_t all = 0;      // sums over all elements
  int64_t groups = 0;   // groups of rows, each with one sum per column
  at::ScalarType column_type = at::kDouble;
  // One sum per row and one per column, both complete: in the parameter's dtype if that is float or double.
  bool whole = false;
  static Partials whole_sums() { return {.per_row = 1, .groups = 1, .whole = true}; }
};

// Whether a gradient by a parameter would be a sum per column.
bool has_column_parameter(const LikelihoodArguments& a);
// Whether the kernels write every gradient in the mask in its final form (sums of everything are left as sums per row):
// per element or row, or a complete sum per column.
bool are_whole(const LikelihoodArguments& a, int64_t output_mask);

// Scratch buffers for the gradients of a likelihood's parameters and log_library: per element, or partial sums per row,
// per column or of everything, depending on the parameter's shape. `finish` converts them to that shape and its dtype.
class ParameterGradients {
 public:
  ParameterGradients(const LikelihoodArguments& a, int64_t output_mask, const Partials& partials);

  bool with_columns() const;
  void finish(Gradients& out) const;

  Tensor elements[kMaxParameters];         // recon's shape; undefined: not in the mask, or summed
  void* row_sums[kMaxParameters] = {};     // [B, per_row]; null: not in the mask, or another form
  double* all_sums[kMaxParameters] = {};   // [all]
  void* column_sums[kMaxParameters] = {};  // [groups, features]
  void* library = nullptr;                 // [B]
  // The buffer that the kernel writes for parameter k, or log_library; undefined: not in the mask.
  const Tensor& buffer(int64_t place) const { return parts_[place].buffer; }

 private:
  struct Part {
    Tensor buffer;        // what the kernel writes; undefined: not in the mask
    at::DimVector sizes;  // its shape aligned with recon
    Tensor of;            // the parameter
    bool by_row = false;  // `finish` leaves it as one sum per row
  };
  Part parts_[kGradients];
};

}  // namespace pyvae
