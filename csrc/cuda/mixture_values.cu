// Log densities under mixtures, forward: log sum_k e^(term k) of each row, in one pass over the components.
#include "cuda/mixture.cuh"

namespace pyvae {
namespace cuda {
namespace {

// Running log-sum-exp: the largest term so far, and the sum of e^(term - largest). A NaN term makes the sum NaN.
template <class T>
struct LogSumExp {
  T top = -Real<T>::kInfinity, sum = T(0);

  // What terms are relative to: where all are -inf, so is the result.
  __device__ __forceinline__ T base() const { return top == -Real<T>::kInfinity ? T(0) : top; }

  template <int N>
  __device__ __forceinline__ void add(const T (&terms)[N]) {
    const T before = top;
    for (const T term : terms) top = larger_of(top, term);
    sum *= share(before - base());
    for (const T term : terms) sum += share(term - base());
  }

  // Those of `lanes` neighbors. All lanes of a warp must call.
  __device__ __forceinline__ void add_neighbors(int lanes) {
    const T before = top;
    for (int step = lanes / 2; step > 0; step /= 2) top = larger_of(top, __shfl_xor_sync(0xffffffffu, top, step));
    sum = warp_sum(sum * share(before - base()), lanes);
  }

  __device__ __forceinline__ void write(const Mixture& a, int64_t value) const {
    static_cast<T*>(a.values)[value] = base() + log(sum);
    if (a.top) static_cast<T*>(a.top)[value] = base(), static_cast<T*>(a.sum)[value] = sum;
  }
};

template <class Way>
__global__ void __launch_bounds__(kThreads, Way::kBlocks) mixture_values_kernel(const __grid_constant__ Mixture a) {
  using T = typename Way::T;
  __shared__ typename Way::Tile tile;
  const RowPlace at(a);
  const int features = int(a.tiling.features);
  T z[Way::kMost];
  load_row<Way>(static_cast<const T*>(a.z) + at.in_z, features, z);
  LogSumExp<T> seen;
  for_components<Way>(a, at, tile, [&](auto count, int k) {
    T terms[decltype(count)::value];
    terms_of<Way>(tile, k, a.tiling.lanes, features, z, terms);
    seen.add(terms);
  });
  seen.add_neighbors(a.tiling.lanes);
  if (at.exists && at.lane == 0) seen.write(a, at.value);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) wide_mixture_values_kernel(const __grid_constant__ Mixture a) {
  constexpr int N = 8;
  const RowPlace at(a);
  const T* const z = static_cast<const T*>(a.z) + at.in_z;  // [features]
  const T* const peaks = peaks_of<T>(a, at.problem);        // [components]
  const Cell<T>* const cells = cells_of<T>(a, at.problem);  // [components, features]
  LogSumExp<T> seen;
#pragma unroll 1
  for (int64_t first = 0; first < a.components; first += N) {
    const int64_t rest = a.components - first;
    T terms[N];
    wide_squares(z, cells + first * a.features, rest, a.features, terms);
    for (int j = 0; j < N; ++j) terms[j] = j < rest ? with_squares(terms[j], peaks[first + j]) : -Real<T>::kInfinity;
    seen.add(terms);
  }
  if (at.exists && at.lane == 0) seen.write(a, at.value);
}

template <class T>
const char* launch_of(const Mixture& a, void* stream) {
  const int64_t blocks = a.tiling.problems * a.tiling.row_tiles;
  if (a.tiling.wide) return run(wide_mixture_values_kernel<T>, a, blocks, stream);
  return choose_narrow<T>(
      a, [&](auto way) { return run(mixture_values_kernel<typename decltype(way)::type>, a, blocks, stream); });
}

}  // namespace

const char* launch_mixture_values(const Mixture& a, void* stream) {
  return a.in_double ? launch_of<double>(a, stream) : launch_of<float>(a, stream);
}

}  // namespace cuda
}  // namespace pyvae
