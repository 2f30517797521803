// Log densities under mixtures, backward: the gradient by z. What the exponentials of a row's terms add up to is known
// from forward.
#include "cuda/mixture.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Way>
__global__ void __launch_bounds__(kThreads, Way::kBlocks) mixture_by_z_kernel(const __grid_constant__ Mixture a) {
  using T = typename Way::T;
  __shared__ typename Way::Tile tile;
  const RowPlace at(a);
  const int features = int(a.tiling.features), lanes = a.tiling.lanes;
  T z[Way::kMost], grad[Way::kMost];
  load_row<Way>(static_cast<const T*>(a.z) + at.in_z, features, z);
  for (int l = 0; l < Way::kMost; ++l) grad[l] = T(0);
  const Shares<T> of_row(a, at.value);
  for_components<Way>(a, at, tile, [&](auto count, int k) {
    constexpr int N = decltype(count)::value;
    T r[N];
    terms_of<Way>(tile, k, lanes, features, z, r);
    for (int j = 0; j < N; ++j) r[j] = share_of_term(a, of_row.top, of_row.factor, r[j]);
    for_features<Way>(features, [&](int l) {
      PYVAE_UNROLL
      for (int j = 0; j < N; ++j) {
        const Cell<T> cell = tile.cells[l][k + j * lanes];
        grad[l] = add_by_z(r[j], standardized(z[l], cell.mean, cell.inverse), cell.inverse, grad[l]);
      }
    });
  });
  T* const out = static_cast<T*>(a.grad_z) + at.in_z;  // [features]
  for_features<Way>(features, [&](int l) {
    const T sum = warp_sum(grad[l], lanes);
    if (at.exists && at.lane == 0 && l < features) out[l] = sum;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) wide_mixture_by_z_kernel(const __grid_constant__ Mixture a) {
  constexpr int N = 8;
  const RowPlace at(a);
  const T* const z = static_cast<const T*>(a.z) + at.in_z;  // [features]
  T* const out = static_cast<T*>(a.grad_z) + at.in_z;       // [features]
  const T* const peaks = peaks_of<T>(a, at.problem);        // [components]
  const Shares<T> of_row(a, at.value);
#pragma unroll 1
  for (int64_t first = 0; first < a.components; first += N) {
    const int64_t rest = a.components - first;
    const Cell<T>* const cells = cells_of<T>(a, at.problem) + first * a.features;  // [rest, features]
    T r[N];
    wide_squares(z, cells, rest, a.features, r);
    for (int j = 0; j < N; ++j) {
      const T term = with_squares(r[j], peaks[first + (j < rest ? j : 0)]);
      r[j] = j < rest ? share_of_term(a, of_row.top, of_row.factor, term) : T(0);
    }
#pragma unroll 1
    for (int64_t l = at.lane; l < a.features && at.exists; l += kWarp) {
      T grad = first > 0 ? out[l] : T(0);
      PYVAE_UNROLL
      for (int j = 0; j < N; ++j) {
        if (j >= rest) continue;
        const Cell<T> cell = cells[j * a.features + l];
        grad = add_by_z(r[j], standardized(z[l], cell.mean, cell.inverse), cell.inverse, grad);
      }
      out[l] = grad;
    }
  }
}

template <class T>
const char* launch_of(const Mixture& a, void* stream) {
  const int64_t blocks = a.tiling.problems * a.tiling.row_tiles;
  if (a.tiling.wide) return run(wide_mixture_by_z_kernel<T>, a, blocks, stream);
  return choose_narrow<T>(
      a, [&](auto way) { return run(mixture_by_z_kernel<typename decltype(way)::type>, a, blocks, stream); });
}

}  // namespace

const char* launch_mixture_by_z(const Mixture& a, void* stream) {
  return a.in_double ? launch_of<double>(a, stream) : launch_of<float>(a, stream);
}

}  // namespace cuda
}  // namespace pyvae
