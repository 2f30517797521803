// The gradients of a likelihood: by recon, by log_library, and by its parameters.
#pragma once

#include <array>
#include <vector>

#include "ops/arguments.h"

namespace pyvae {

// Places in Gradients, and bits of an output mask. Parameter k is at kGradParameter + k.
enum GradientPlace : int64_t { kGradRecon, kGradLogLibrary, kGradParameter };
constexpr int64_t kGradients = kGradParameter + kMaxParameters;
// One more place, which only backward_rows_ uses: what a device keeps so that sums per column are made again sooner, in
// a form of its own. Its bit also asks to leave sums of everything as one of each row, [B, 1, ...].
constexpr int64_t kKept = kGradients;
using Gradients = std::array<Tensor, kGradients + 1>;  // undefined where not in the mask

constexpr bool is_set(int64_t output_mask, int64_t place) { return (output_mask >> place & 1) != 0; }

// As an operator's results, (recon's, the parameters', log_library's): empty where not in the mask.
using GradientOutputs = std::tuple<Tensor, std::vector<Tensor>, Tensor>;
GradientOutputs to_outputs(const Gradients& gradients, const LikelihoodArguments& a);
Gradients from_outputs(const GradientOutputs& outputs);

// How a device's kernel cuts the sums that it leaves to be finished. 0: it makes none of that kind, and writes
// elements.
struct Partials {
  int64_t per_row = 0;  // sums of each row
  int64_t all = 0;      // of all elements
  int64_t groups = 0;   // of rows, each with a sum per column
  at::ScalarType column_type = at::kDouble;
  // One of each row and one of each column, which are whole: in the parameter's own type where that is float or double.
  bool whole = false;
  static Partials whole_sums() { return {.per_row = 1, .groups = 1, .whole = true}; }
};

// Whether a gradient by a parameter would be a sum per column.
bool has_column_parameter(const LikelihoodArguments& a);
// Whether each gradient of the mask is as the kernels make it, where sums of everything are left as sums of rows: of
// each element or row, or a whole sum per column.
bool are_whole(const LikelihoodArguments& a, int64_t output_mask);

// Scratch buffers for the gradients of a likelihood's parameters and log_library: per element, or partial
// sums per row, per column or of everything, depending on the parameter's shape. `finish` brings them to that shape and
// its dtype.
class ParameterGradients {
 public:
  ParameterGradients(const LikelihoodArguments& a, int64_t output_mask, const Partials& partials);

  bool with_columns() const;
  void finish(Gradients& out) const;

  Tensor elements[kMaxParameters];         // recon's shape; undefined: not in the mask, or summed
  void* row_sums[kMaxParameters] = {};     // [B, per_row]; null: not in the mask, or otherwise
  double* all_sums[kMaxParameters] = {};   // [all]
  void* column_sums[kMaxParameters] = {};  // [groups, features]
  void* library = nullptr;                 // [B]
  // What is to be written for parameter k, or log_library, as a tensor; undefined: not in the mask.
  const Tensor& buffer(int64_t place) const { return parts_[place].buffer; }

 private:
  struct Part {
    Tensor buffer;        // what the kernel writes; undefined: not in the mask
    at::DimVector sizes;  // its shape aligned with recon
    Tensor of;            // the parameter
    bool by_row = false;  // it is left as it is, one sum of each row
  };
  Part parts_[kGradients];
};

}  // namespace pyvae
