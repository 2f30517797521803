// Decoder side: the gradients of parameters that were broadcast over rows, summed per column. The elements are
// evaluated anew, so that nothing of recon's size is kept for them.
#include "cuda/element.cuh"

namespace pyvae {
namespace cuda {
namespace {

// One thread a column, over the rows of a group.
template <class Likelihood, class T>
__global__ void __launch_bounds__(kThreads, kLongBlocks<T>) column_sums_kernel(const __grid_constant__ ColumnSums a) {
  constexpr int P = Likelihood::kParameters;
  const int64_t tiles = (a.shape.features + kThreads - 1) / kThreads, group = blockIdx.x / tiles;
  const int64_t column = (blockIdx.x - group * tiles) * kThreads + threadIdx.x;
  if (column >= a.shape.features) return;
  const int64_t begin = group * a.rows_each, end = begin + a.rows_each;
  double sums[P] = {};
  for (int64_t row = begin; row < (end < a.shape.rows ? end : a.shape.rows); ++row) {
    const T normalizer = a.normalizers ? T(a.normalizers[row]) : T(0);
    const T shift = T(read(a.log_library, row)) - normalizer, scale = T(scale_of(a, row));
    const auto term = evaluate_at<Likelihood>(a, row * a.shape.features + column, shift);
    for (int k = 0; k < P; ++k) sums[k] += double(scale * term.parameters[k]);
  }
  for (int k = 0; k < P; ++k) {
    if (a.column_sums[k]) a.column_sums[k][group * a.shape.features + column] = sums[k];
  }
}

}  // namespace

const char* launch(const ColumnSums& a, void* stream) {
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) -> const char* {
    using Likelihood = typename decltype(tag)::type;
    if constexpr (Likelihood::kParameters == 0) {
      return "this likelihood has no parameters";
    } else {
      const auto kernel = a.in_double ? column_sums_kernel<Likelihood, double> : column_sums_kernel<Likelihood, float>;
      return run(kernel, a, a.groups * ((a.shape.features + kThreads - 1) / kThreads), stream);
    }
  });
}

}  // namespace cuda
}  // namespace pyvae
