// The gradients of a likelihood: by recon, by log_library, and by its parameters.
#pragma once

#include <array>
#include <vector>

#include "ops/arguments.h"

namespace pyvae {

// Places in Gradients, and bits of an output mask. Parameter k is at kGradParameter + k.
enum GradientPlace : int64_t { kGradRecon, kGradLogLibrary, kGradParameter };
constexpr int64_t kGradients = kGradParameter + kMaxParameters;
using Gradients = std::array<Tensor, kGradients>;  // undefined where not in the mask

constexpr bool is_set(int64_t output_mask, int64_t place) { return (output_mask >> place & 1) != 0; }

// As an operator's results, (recon's, the parameters', log_library's): empty where not in the mask.
using GradientOutputs = std::tuple<Tensor, std::vector<Tensor>, Tensor>;
GradientOutputs to_outputs(const Gradients& gradients, const LikelihoodArguments& a);
Gradients from_outputs(const GradientOutputs& outputs);

// Scratch buffers for the gradients of a likelihood's parameters and log_library: per element, summed per row, or
// partial sums per column, depending on the parameter's shape. `finish` brings them to that shape and its dtype.
class ParameterGradients {
 public:
  // `groups`: of rows, for each of which the kernel leaves partial sums per column, as numbers of `column_type`.
  ParameterGradients(const LikelihoodArguments& a, int64_t output_mask, int64_t groups, at::ScalarType column_type);

  bool with_columns() const;
  void finish(Gradients& out) const;

  Tensor elements[kMaxParameters];         // recon's shape; undefined: not in the mask, or summed
  double* row_sums[kMaxParameters] = {};   // [B]; null: not in the mask, or otherwise
  void* column_sums[kMaxParameters] = {};  // [groups, features]
  double* library = nullptr;               // [B]

 private:
  struct Part {
    Tensor buffer;        // what the kernel writes; undefined: not in the mask
    at::DimVector sizes;  // its shape aligned with recon
    Tensor of;            // the parameter
  };
  Part parts_[kGradients];
};

}  // namespace pyvae
