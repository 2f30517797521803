// Log densities under mixtures, backward: the sums over rows of which the components' gradients are made. A block takes
// some components of a problem and a part of its rows, eight at a time: first the shares of each row's upstream
// gradient, then for each of a component's features their sums over the rows.
#include "cuda/mixture.cuh"

namespace pyvae {
namespace cuda {
namespace {

struct MomentsPlace {
  int64_t problem, component, feature;  // the first of each
  int64_t begin, end;                   // rows
  double *first, *second, *weight;      // the part's sums: [features, components], if wide [components, features], and
                                        // [components]

  __device__ __forceinline__ MomentsPlace(const Mixture& a, int64_t components, int64_t features) {
    const MixtureTiling& t = a.tiling;
    int64_t rest = blockIdx.x, part, tile;
    rest = divide(rest, t.parts, part);
    rest = divide(rest, t.feature_tiles, tile);
    feature = tile * features;
    problem = divide(rest, t.component_tiles, tile);
    component = tile * components;
    begin = part * t.rows_each, end = begin + t.rows_each < t.rows ? begin + t.rows_each : t.rows;
    const int64_t cells = t.features * a.components;
    first = a.sums + (problem * t.parts + part) * t.sums_each(a.components);
    second = first + cells, weight = second + cells;
  }

  __device__ __forceinline__ void write(int64_t cell, const Moments<double>& sums, bool with_weight) const {
    first[cell] = sums.first, second[cell] = sums.second;
    if (with_weight) weight[cell] = sums.weight;  // of the first feature: there a cell's number is its component's
  }
};

// Adds what was summed in T, and begins anew.
template <class T>
__device__ __forceinline__ void flush(Moments<T>& sums, Moments<double>& totals) {
  totals.weight += double(sums.weight), totals.first += double(sums.first), totals.second += double(sums.second);
  sums = {};
}
template <class T>
__device__ __forceinline__ void flush(T& value, double* sum, bool is_first) {
  *sum = is_first ? double(value) : *sum + double(value);
  value = T(0);
}

// Of several features.
template <class Way>
__global__ void __launch_bounds__(kThreads, 2) mixture_moments_kernel(const __grid_constant__ Mixture a) {
  using T = typename Way::T;
  constexpr int R = kRowsAtOnce, K = Way::kAtOnce, kCells = kOwnCells;
  constexpr int kSplit = R * K < kThreads ? kThreads / (R * K) : 1;  // threads of a row's component
  __shared__ T z[R][Way::kMost], r[R][K];
  __shared__ Cell<T> cells[Way::kMost][K];
  const int features = int(a.tiling.features), thread = int(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const MomentsPlace at(a, K, features);
  const RowsOf rows(a, at.problem);
  const int count = a.components - at.component < K ? int(a.components - at.component) : K;
  const T* const peaks = peaks_of<T>(a, at.problem) + at.component;  // [count]
  for (int c = thread; c < Way::kMost * K; c += kThreads) {          // beyond features and components: 0
    const int l = c / K, k = c % K;
    const bool exists = l < features && k < count;
    cells[l][k] = exists ? cells_of<T>(a, at.problem)[l * a.components + at.component + k] : Cell<T>{T(0), T(0)};
  }
  for (int l = lane; l < Way::kMost; l += kWarp) z[warp][l] = T(0);
  Moments<T> sums[kCells] = {};
  Moments<double> totals[kCells] = {};
  int in_sums = 0;
#pragma unroll 1
  for (int64_t step = at.begin; step < at.end; step += R) {
    const int there = at.end - step < R ? int(at.end - step) : R;  // rows
    for (int l = lane; l < features; l += kWarp)
      z[warp][l] = warp < there ? static_cast<const T*>(a.z)[rows.in_z(a, step + warp) + l] : T(0);
    __syncthreads();
    PYVAE_UNROLL
    for (int n = 0; n < R * K * kSplit / kThreads; ++n) {
      const int pair = (n * kThreads + thread) / kSplit, i = pair / K, k = pair % K;  // a row and a component
      T square = T(0);
      PYVAE_UNROLL
      for (int j = 0; j < Way::kMost / kSplit; ++j) {
        if (j * kSplit >= features) continue;
        const int l = j * kSplit + thread % kSplit;
        const T y = standardized(z[i][l], cells[l][k].mean, cells[l][k].inverse);
        square = fma(y, y, square);
      }
      square = warp_sum(square, kSplit);
      const bool exists = i < there && k < count;
      const Shares<T> of_row(a, rows.value(a, exists ? step + i : step));
      const T own = share_of_term(a, of_row.top, of_row.factor, with_squares(square, peaks[exists ? k : 0]));
      if (thread % kSplit == 0) r[i][k] = exists ? own : T(0);
    }
    __syncthreads();
    in_sums += R;
    const bool ends = in_sums == kRowsInT || step + R >= at.end;
    PYVAE_UNROLL
    for (int j = 0; j < kCells; ++j) {
      const int c = thread + j * kThreads, l = c / K, k = c % K;
      if (l >= features) continue;
      const Cell<T> cell = cells[l][k];
      PYVAE_UNROLL
      for (int i = 0; i < R; ++i) {
        sums[j].add(r[i][k], standardized(z[i][l], cell.mean, cell.inverse));
        sums[j].weight += r[i][k];
      }
      if (ends) flush(sums[j], totals[j]);
    }
    if (ends) in_sums = 0;
    __syncthreads();  // before the next rows come
  }
  for (int j = 0; j < kCells; ++j) {
    const int c = thread + j * kThreads, l = c / K, k = c % K;
    if (l < features && k < count) at.write(l * a.components + at.component + k, totals[j], l == 0);
  }
}

// Of one feature a thread makes the shares itself. It takes one component, and of the rows each that is some further.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) element_moments_kernel(const __grid_constant__ Mixture a) {
  constexpr int R = kElementsAtOnce;
  __shared__ T z[R], top[R], factor[R];
  __shared__ Moments<double> of_threads[kThreads];
  const int shift = a.tiling.shift, thread = int(threadIdx.x), apart = kThreads >> shift;
  const int k = thread & ((1 << shift) - 1), first = thread >> shift;
  const MomentsPlace at(a, int64_t(1) << shift, 1);
  const RowsOf rows(a, at.problem);
  const bool exists = at.component + k < a.components;
  const int64_t component = exists ? at.component + k : 0;
  const Cell<T> cell = cells_of<T>(a, at.problem)[component];
  const T peak = peaks_of<T>(a, at.problem)[component];
  Moments<double> total = {};
#pragma unroll 1
  for (int64_t step = at.begin; step < at.end; step += R) {
    const int there = at.end - step < R ? int(at.end - step) : R;  // rows
    if (thread < there) {
      const Shares<T> of_row(a, rows.value(a, step + thread));
      z[thread] = static_cast<const T*>(a.z)[rows.in_z(a, step + thread)];
      top[thread] = of_row.top, factor[thread] = of_row.factor;
    }
    __syncthreads();
    Moments<T> sums = {};
#pragma unroll 4
    for (int i = first; i < there; i += apart) {
      const T y = standardized(z[i], cell.mean, cell.inverse);
      const T r = share_of_term(a, top[i], factor[i], with_square(y, peak));
      sums.add(r, y);
      sums.weight += r;
    }
    flush(sums, total);
    __syncthreads();  // before the next rows come
  }
  of_threads[thread] = total;
  __syncthreads();
  if (first > 0 || !exists) return;
  for (int i = 1; i < apart; ++i) {
    const Moments<double> other = of_threads[thread + (i << shift)];
    total = {total.weight + other.weight, total.first + other.first, total.second + other.second};
  }
  at.write(component, total, true);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) wide_mixture_moments_kernel(const __grid_constant__ Mixture a) {
  constexpr int R = kRowsAtOnce, N = kWideComponents, F = kWideFeatures;
  __shared__ T r[R][N];
  const MomentsPlace at(a, N, F * kThreads);
  const RowsOf rows(a, at.problem);
  const int64_t count = a.components - at.component;                                    // of components, if below N
  const T* const peaks = peaks_of<T>(a, at.problem) + at.component;                     // [count]
  const Cell<T>* const cells = cells_of<T>(a, at.problem) + at.component * a.features;  // [count, features]
  const T* const all = static_cast<const T*>(a.z);
  const int thread = int(threadIdx.x), warp = thread / kWarp;
  T first[F][N] = {}, second[F][N] = {}, weight = T(0);
  int in_sums = 0;
#pragma unroll 1
  for (int64_t step = at.begin; step < at.end; step += R) {
    const int there = at.end - step < R ? int(at.end - step) : R;  // rows
    const int64_t own = step + (warp < there ? warp : 0);
    T squares[N];
    wide_squares(all + rows.in_z(a, own), cells, count, a.features, squares);
    const Shares<T> of_row(a, rows.value(a, own));
    if (thread % kWarp == 0) {
      for (int j = 0; j < N; ++j) {
        const T term = with_squares(squares[j], peaks[j < count ? j : 0]);
        r[warp][j] = warp < there && j < count ? share_of_term(a, of_row.top, of_row.factor, term) : T(0);
      }
    }
    __syncthreads();
    in_sums += R;
    const bool ends = in_sums == kRowsInT || step + R >= at.end, is_first = step - at.begin < kRowsInT;
    PYVAE_UNROLL
    for (int f = 0; f < F; ++f) {
      const int64_t l = at.feature + f * kThreads + thread;
      if (l >= a.features) continue;
      Cell<T> cell[N];
      for (int j = 0; j < N; ++j) cell[j] = cells[(j < count ? j : count - 1) * a.features + l];
#pragma unroll 2
      for (int i = 0; i < there; ++i) {
        const T x = all[rows.in_z(a, step + i) + l];
        PYVAE_UNROLL
        for (int j = 0; j < N; ++j) {
          Moments<T> sums = {T(0), first[f][j], second[f][j]};
          sums.add(r[i][j], standardized(x, cell[j].mean, cell[j].inverse));
          first[f][j] = sums.first, second[f][j] = sums.second;
        }
      }
      for (int j = 0; j < N; ++j) {
        if (!ends || j >= count) continue;
        const int64_t to = (at.component + j) * a.features + l;
        flush(first[f][j], at.first + to, is_first), flush(second[f][j], at.second + to, is_first);
      }
    }
    if (at.feature == 0 && thread < N && thread < count) {
      for (int i = 0; i < there; ++i) weight += r[i][thread];
      if (ends) flush(weight, at.weight + at.component + thread, is_first);
    }
    if (ends) in_sums = 0;
    __syncthreads();  // before the next shares come
  }
}

template <class T>
const char* launch_of(const Mixture& a, void* stream) {
  const int64_t blocks = a.tiling.moment_blocks();
  if (a.tiling.wide) return run(wide_mixture_moments_kernel<T>, a, blocks, stream);
  if (a.tiling.features == 1) return run(element_moments_kernel<T>, a, blocks, stream);
  return a.tiling.features <= kFewFeatures
             ? run(mixture_moments_kernel<Narrow<T, kFewFeatures>>, a, blocks, stream)
             : run(mixture_moments_kernel<Narrow<T, kNarrowFeatures<T>>>, a, blocks, stream);
}

}  // namespace

const char* launch_mixture_moments(const Mixture& a, void* stream) {
  return a.in_double ? launch_of<double>(a, stream) : launch_of<float>(a, stream);
}

}  // namespace cuda
}  // namespace pyvae
