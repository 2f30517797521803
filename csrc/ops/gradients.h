// The gradients of a likelihood: by recon, by its parameters, and by log_library.
#pragma once

#include <array>

#include "math/terms.h"
#include "ops/arguments.h"

namespace pyvae {

// Places in Gradients, and bits in a set of those that are wanted.
enum GradientOf : int64_t { kOfRecon, kOfParameter, kOfSecondParameter, kOfLibrary, kGradients };
using Gradients = std::array<Tensor, kGradients>;  // undefined where not wanted

constexpr bool wants(int64_t wanted, int64_t of) { return (wanted >> of & 1) != 0; }

// As an operator's results: empty where not wanted.
inline std::tuple<Tensor, Tensor, Tensor, Tensor> to_tuple(const Gradients& gradients, const Tensor& recon) {
  Gradients out = gradients;
  for (Tensor& gradient : out) {
    if (!gradient.defined()) gradient = recon.new_empty({0});
  }
  return std::tuple_cat(out);
}

// How a device's kernel cuts the sums that it leaves to be finished. 0: it makes none of that kind, and writes
// elements.
struct Partials {
  int64_t per_row = 0;  // sums of each row
  int64_t all = 0;      // of all elements
  int64_t groups = 0;   // of rows, each with a sum per column
  at::ScalarType column_type = at::kDouble;
};

// The gradients by a likelihood's parameters and by log_library: buffers for what the kernel writes, elements or sums,
// as the parameter's shape asks for, and `finish`, which brings them to that shape and type.
class ParameterGradients {
 public:
  ParameterGradients(const LikelihoodArguments& a, int64_t wanted, const Partials& partials);

  bool with_columns() const { return column_sums[0] || column_sums[1]; }
  void finish(Gradients& out) const;

  Tensor elements[kMaxParameters];         // recon's shape; undefined: not wanted, or summed
  double* row_sums[kMaxParameters] = {};   // [B, per_row]; null: not wanted, or otherwise
  double* all_sums[kMaxParameters] = {};   // [all]
  void* column_sums[kMaxParameters] = {};  // [groups, features]
  double* library = nullptr;               // [B]

 private:
  struct Part {
    Tensor buffer;        // what the kernel writes
    at::DimVector sizes;  // its shape, dimension by dimension as recon's
    Tensor of;            // the parameter
  };
  Part parts_[kGradients];
};

}  // namespace pyvae
