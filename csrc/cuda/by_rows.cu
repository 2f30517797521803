// Decoder side, row by row: a block takes a row at a time, and threads its elements one by one.
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

template <class List, class T>
__device__ __forceinline__ T load_one(const Shape& shape, const Operand& operand, int64_t i) {
  T value[1];
  AnyOf<List>::load(shape, operand, i, value);
  return value[0];
}

template <class T>
__device__ __forceinline__ void store_one(const Shape& shape, const Operand& operand, int64_t i, T value) {
  const T values[1] = {value};
  AnyOf<FactorTypes>::store(shape, operand, i, values);
}

// log sum exp of a row's scores, as torch's: NaN where one of them is NaN or inf.
template <class T>
__device__ __forceinline__ T log_sum_exp(const Shape& shape, const Operand& scores, int64_t row) {
  const int64_t first = row * shape.features;
  double largest = -Real<double>::kInfinity;
  for (int64_t i = threadIdx.x; i < shape.features; i += kThreads) {
    const double score = load_one<FactorTypes, T>(shape, scores, first + i);
    largest = score > largest ? score : largest;
  }
  largest = block_max(largest);
  double total = 0;
  for (int64_t i = threadIdx.x; i < shape.features; i += kThreads) {
    total += double(exp_negative(load_one<FactorTypes, T>(shape, scores, first + i) - T(largest)));
  }
  return T(largest + log(block_sum(total)));
}

// Whether an element counts, by a weight of bools if there is one.
template <class T>
__device__ __forceinline__ bool is_selected(const ObjectiveOperands& a, int64_t i) {
  if (!a.is_weighted || !a.is_masked) return true;
  return (a.weight.data ? load_one<FactorTypes, T>(a.shape, a.weight, i) : T(a.weight_number)) != T(0);
}

// One element's value and derivatives, weighted; `shift` is what is added to recon: log_library - log sum exp.
template <class Likelihood, class T>
__device__ __forceinline__ auto evaluate(const ObjectiveOperands& a, int64_t i, T shift) {
  constexpr int P = Likelihood::kParameters;
  T own[at_least_one(P)] = {};
  for (int k = 0; k < P; ++k) own[k] = load_one<FactorTypes, T>(a.shape, a.parameters[k], i);
  const T recon = load_one<FactorTypes, T>(a.shape, a.recon, i) + shift;
  const T target = load_one<StoredTypes, T>(a.shape, a.target, i);
  Terms<T, P> term;
  if constexpr (Likelihood::kIsCount) {
    term = target == T(0) ? Likelihood::template evaluate_zero<Accurate>(recon, own)
                          : Likelihood::template evaluate<Accurate>(recon, target, own);
  } else {
    term = pyvae::evaluate<Likelihood, Accurate>(recon, target, own);
  }
  if (a.is_weighted) {
    const T weight = a.weight.data ? load_one<FactorTypes, T>(a.shape, a.weight, i) : T(a.weight_number);
    if (!a.is_masked) {
      term.value *= weight, term.derivative *= weight;
      for (int k = 0; k < P; ++k) term.parameters[k] *= weight;
    } else if (weight == T(0)) {  // what is left out is not looked at
      term = {};
    }
  }
  return term;
}

__device__ __forceinline__ double scale_of(const ObjectiveByRows& a, int64_t row) {
  return a.factor * (a.upstream.data ? read(a.upstream, row) : 1);
}

template <class Likelihood, class T>
__device__ __forceinline__ void one_row(const ObjectiveByRows& a, int64_t row) {
  constexpr int P = Likelihood::kParameters;
  const int64_t first = row * a.shape.features;
  const T normalizer = a.softmax ? log_sum_exp<T>(a.shape, a.recon, row) : T(0);
  const T shift = T(read(a.log_library, row)) - normalizer, scale = T(scale_of(a, row));
  double value = 0, by_recon = 0, by_parameter[P > 0 ? P : 1] = {}, selected = 0;
  for (int64_t i = threadIdx.x; i < a.shape.features; i += kThreads) {
    if (is_selected<T>(a, first + i)) selected = 1;
    const auto term = evaluate<Likelihood>(a, first + i, shift);
    value += double(term.value), by_recon += double(term.derivative);
    if (a.gradient.data && !a.softmax) store_one(a.shape, a.gradient, first + i, scale * term.derivative);
    for (int k = 0; k < P; ++k) {
      by_parameter[k] += double(term.parameters[k]);
      if (a.parameter_gradients[k].data) {
        store_one(a.shape, a.parameter_gradients[k], first + i, scale * term.parameters[k]);
      }
    }
  }
  value = block_sum(value), by_recon = block_sum(by_recon);
  for (int k = 0; k < P; ++k) by_parameter[k] = block_sum(by_parameter[k]);
  if (threadIdx.x == 0) {
    if (a.workspace.partials) a.workspace.partials[row] = value;
    if (a.normalizers) a.normalizers[row] = double(normalizer);
    if (a.library_gradient) a.library_gradient[row] = double(scale) * by_recon;
    for (int k = 0; k < P; ++k) {
      if (a.row_sums[k]) a.row_sums[k][row] = double(scale) * by_parameter[k];
    }
  }
  if (!a.gradient.data || !a.softmax) return;
  // Of a row that is left out as a whole nothing counts, not even a NaN among its scores.
  const bool counts = !a.is_weighted || !a.is_masked || block_sum(selected) > 0;
  // a_j = score_j - log sum exp(scores), so d a_j / d score_i = [i = j] - p_i, p = softmax: with d the derivatives by
  // a, made anew, d value / d score_i = d_i - p_i sum(d).
  for (int64_t i = threadIdx.x; i < a.shape.features; i += kThreads) {
    const T p = exp_negative(load_one<FactorTypes, T>(a.shape, a.recon, first + i) - normalizer);
    const T d = evaluate<Likelihood>(a, first + i, shift).derivative;
    store_one(a.shape, a.gradient, first + i, counts ? scale * fma(-p, T(by_recon), d) : T(0));
  }
}

template <class Likelihood, class T>
__global__ void __launch_bounds__(kThreads, kByRowsBlocks<T>)
    by_rows_kernel(const __grid_constant__ ObjectiveByRows a) {
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

// One thread a column, over the rows of a group.
template <class Likelihood, class T>
__global__ void __launch_bounds__(kThreads, kByRowsBlocks<T>) column_sums_kernel(const __grid_constant__ ColumnSums c) {
  const ObjectiveByRows& a = c.objective;
  constexpr int P = Likelihood::kParameters;
  const int64_t tiles = (a.shape.features + kThreads - 1) / kThreads, group = blockIdx.x / tiles;
  const int64_t column = (blockIdx.x - group * tiles) * kThreads + threadIdx.x;
  if (column >= a.shape.features) return;
  const int64_t begin = group * c.rows_each, end = begin + c.rows_each;
  double sums[P > 0 ? P : 1] = {};
  for (int64_t row = begin; row < (end < a.shape.rows ? end : a.shape.rows); ++row) {
    const T normalizer = a.softmax ? T(a.normalizers[row]) : T(0);
    const auto term =
        evaluate<Likelihood>(a, row * a.shape.features + column, T(read(a.log_library, row)) - normalizer);
    const T scale = T(scale_of(a, row));
    for (int k = 0; k < P; ++k) sums[k] += double(scale * term.parameters[k]);
  }
  for (int k = 0; k < P; ++k) {
    if (a.column_sums[k]) a.column_sums[k][group * a.shape.features + column] = sums[k];
  }
}

// f(Tag<likelihood>(), Tag<type>()) for those that go by rows.
template <class Launch>
const char* choose_by_rows(const ObjectiveOperands& a, const Launch& launch) {
  return visit(Likelihoods{}, a.likelihood, [&](auto likelihood) -> const char* {
    if constexpr (kGoesByRows<typename decltype(likelihood)::type>) {
      return a.in_double ? launch(likelihood, Tag<double>{}) : launch(likelihood, Tag<float>{});
    } else {
      return "this likelihood does not go by rows";
    }
  });
}

}  // namespace

const char* launch(const ObjectiveByRows& a, void* stream) {
  return choose_by_rows(a, [&](auto likelihood, auto type) {
    const auto kernel = by_rows_kernel<typename decltype(likelihood)::type, typename decltype(type)::type>;
    const int64_t rows = a.shape.rows < kMostParts ? a.shape.rows : kMostParts;
    return run(kernel, a, rows > 0 ? rows : 1, stream);  // of no rows the sum is 0
  });
}

const char* launch(const ColumnSums& c, void* stream) {
  return choose_by_rows(c.objective, [&](auto likelihood, auto type) {
    const auto kernel = column_sums_kernel<typename decltype(likelihood)::type, typename decltype(type)::type>;
    return run(kernel, c, c.groups * ((c.objective.shape.features + kThreads - 1) / kThreads), stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
