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

// All but recon's, on their way from a kernel that goes by rows. A parameter's are elements, or sums over each row or
// over each column, as its shape wants them; `finish` brings them to that shape and its type.
class RowGradients {
 public:
  // `groups`: of rows, whose sums per column the kernel leaves apart, as numbers of `column_type`.
  RowGradients(const LikelihoodArguments& a, int64_t wanted, int64_t groups, at::ScalarType column_type);

  bool with_columns() const { return column_sums[0] || column_sums[1]; }
  void finish(Gradients& out) const;

  Tensor elements[kMaxParameters];         // recon's shape; undefined: not wanted, or summed
  double* row_sums[kMaxParameters] = {};   // [B]; null: not wanted, or otherwise
  void* column_sums[kMaxParameters] = {};  // [groups, features]
  double* library = nullptr;               // [B]

 private:
  // A buffer, its shape as one that broadcasts from the tensor's whose gradient it is, and that tensor.
  struct Part {
    Tensor buffer;
    at::DimVector sizes;
    Tensor of;
  };
  Part parts_[kGradients];
};

}  // namespace pyvae
