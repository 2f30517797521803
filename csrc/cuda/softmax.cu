// Decoder side through a softmax, forward and backward: the mean of an element is library * softmax(recon) over its
// row. A block takes a row at a time, and threads its elements one by one: a stage before them makes the row's
// normalizer, a stage after them takes their derivatives through the softmax. What lies between is element.cuh's. The
// derivatives wait in the gradient's own place, if its type holds them; in 16 bits it does not, and they are made anew.
#include "cuda/objective.cuh"

namespace pyvae {
namespace cuda {
namespace {

// Valid in every thread. NaN loses.
__device__ __forceinline__ double block_max(double value) {
  __shared__ double largest[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(0xffffffffu, value, step);
    if (!(value >= other)) value = other;
  }
  __syncthreads();  // `largest` may still be read from the call before
  if (threadIdx.x % kWarp == 0) largest[threadIdx.x / kWarp] = value;
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarp; ++warp) value = largest[warp] > value ? largest[warp] : value;
  return value;
}

// log sum exp of a row's scores, as torch's: NaN where one of them is NaN or inf.
template <class T>
__device__ __forceinline__ T log_sum_exp(const Shape& shape, const Operand& scores, int64_t row) {
  const int64_t first = row * shape.features;
  T own = -Real<T>::kInfinity;
  for (int64_t i = threadIdx.x; i < shape.features; i += kThreads) {
    const T score = load_one<FloatingTypes, T>(shape, scores, first + i);
    own = score > own ? score : own;
  }
  const double largest = block_max(own);
  double total = 0;
  for (int64_t i = threadIdx.x; i < shape.features; i += kThreads) {
    total += double(exp_negative(load_one<FloatingTypes, T>(shape, scores, first + i) - T(largest)));
  }
  return T(largest + log(block_sum(total)));
}

template <class Likelihood, class T>
__device__ __forceinline__ void one_row(const SoftmaxObjective& a, int64_t row) {
  const int64_t first = row * a.shape.features;
  const T normalizer = log_sum_exp<T>(a.shape, a.recon, row), shift = T(read(a.log_library, row)) - normalizer;
  const T scale = T(scale_of(a, row));
  const bool waits = a.gradient.data && a.gradient.type == kTypeCode<T>;
  double value = 0, by_log_mean = 0, selected = 0;
  for (int64_t i = first + threadIdx.x; i < first + a.shape.features; i += kThreads) {
    if (is_selected<T>(a, i)) selected = 1;
    const auto term = evaluate_at<Likelihood>(a, i, shift);
    value += double(term.value), by_log_mean += double(term.derivative);
    if (waits) store_one<Types<T>>(a.shape, a.gradient, i, term.derivative);
    for (int k = 0; k < Likelihood::kParameters; ++k) {
      if (!a.parameter_gradients[k].data) continue;
      store_one<FloatingTypes>(a.shape, a.parameter_gradients[k], i, scale * term.parameters[k]);
    }
  }
  value = block_sum(value), by_log_mean = block_sum(by_log_mean);
  if (threadIdx.x == 0) {
    if (a.workspace.partials) a.workspace.partials[row] = value;
    if (a.normalizers) a.normalizers[row] = double(normalizer);
    if (a.library_gradient) a.library_gradient[row] = double(scale) * by_log_mean;
  }
  if (!a.gradient.data) return;
  // Of a row that is left out as a whole nothing counts, not even a NaN among its scores.
  const bool counts = !a.is_weighted || !a.is_masked || block_sum(selected) > 0;
  // a_j = score_j - log sum exp(scores), so d a_j / d score_i = [i = j] - p_i, p = softmax: with d the derivatives by
  // a, d value / d score_i = d_i - p_i sum(d).
  const auto finish = [&](int64_t i, T d) {
    const T p = exp_negative(load_one<FloatingTypes, T>(a.shape, a.recon, i) - normalizer);
    return counts ? scale * fma(-p, T(by_log_mean), d) : T(0);
  };
  for (int64_t i = first + threadIdx.x; i < first + a.shape.features; i += kThreads) {
    if (waits) {
      const T d = load_one<Types<T>, T>(a.shape, a.gradient, i);  // this thread's own
      store_one<Types<T>>(a.shape, a.gradient, i, finish(i, d));
    } else {
      const T d = evaluate_at<Likelihood>(a, i, shift).derivative;
      store_one<FloatingTypes>(a.shape, a.gradient, i, finish(i, d));
    }
  }
}

template <class Likelihood, class T>
__global__ void __launch_bounds__(kThreads, kLongBlocks<T>) softmax_kernel(const __grid_constant__ SoftmaxObjective a) {
  for (int64_t row = blockIdx.x; row < a.shape.rows; row += gridDim.x) one_row<Likelihood, T>(a, row);
  if (!a.workspace.partials || !is_last_block(a.workspace.ticket, gridDim.x)) return;
  if (a.partition.rows == 1) {
    const double recon_term = block_sum(a.workspace.partials, a.shape.rows);
    double kl_term = 0;
    for (int64_t row = threadIdx.x; row < a.shape.rows; row += kThreads) kl_term += read(a.divergence.given, row);
    kl_term = block_sum(kl_term);
    if (threadIdx.x == 0) write_terms(a, 0, recon_term, kl_term);
    return;
  }
  for (int64_t row = threadIdx.x; row < a.shape.rows; row += kThreads) {
    write_terms(a, row, a.workspace.partials[row], read(a.divergence.given, row));
  }
}

}  // namespace

const char* launch(const SoftmaxObjective& a, void* stream) {
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) -> const char* {
    using Likelihood = typename decltype(tag)::type;
    if constexpr (Likelihood::kSoftmax == Softmax::kNever) {
      return "this likelihood has no softmax";
    } else {
      const auto kernel = a.in_double ? softmax_kernel<Likelihood, double> : softmax_kernel<Likelihood, float>;
      const int64_t rows = a.shape.rows < kMostParts ? a.shape.rows : kMostParts;
      return run(kernel, a, rows > 0 ? rows : 1, stream);  // of no rows the sum is 0
    }
  });
}

}  // namespace cuda
}  // namespace pyvae
