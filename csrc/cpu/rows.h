// Decoder side, row by row: likelihoods that have parameters, and those whose mean is a softmax over the row.
//
// A row's chunks stay in the cache from the pass that finds the softmax's normalizer to the one that needs the sum of
// the row's derivatives. Sums per column run over a group's rows; groups are added up by the caller.
#pragma once

#include "cpu/objective.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- elements -------------------------------------------------------------------------------------------------------

// What a likelihood returns for the elements of a chunk.
template <class Likelihood, class T>
struct Results {
  static constexpr int kParameters = Likelihood::kParameters, kArrays = kParameters > 0 ? kParameters : 1;
  T value[kBuffer], by_recon[kBuffer], by_parameter[kArrays][kBuffer];
};

template <class Likelihood, bool kZero, class T>
void evaluate(const T* __restrict a, const T* __restrict x, const T* const* parameters, int n,
              Results<Likelihood, T>& out) {
  constexpr int P = Likelihood::kParameters;
  const T* __restrict const first = parameters[0];
  const T* __restrict const second = parameters[P > 1 ? 1 : 0];
  T* __restrict const value = out.value;
  T* __restrict const by_recon = out.by_recon;
  T* __restrict const by_first = out.by_parameter[0];
  T* __restrict const by_second = out.by_parameter[P > 1 ? 1 : 0];
  for (int i = 0; i < n; ++i) {
    T own[Results<Likelihood, T>::kArrays] = {};
    if constexpr (P > 0) own[0] = first[i];
    if constexpr (P > 1) own[1] = second[i];
    Terms<T, P> term;  // not from a lambda, which g++ would not inline, and so not vectorize
    if constexpr (kZero) {
      term = Likelihood::template evaluate_zero<Exact>(a[i], own);
    } else {
      term = Likelihood::template evaluate<Exact>(a[i], x[i], own);
    }
    value[i] = term.value, by_recon[i] = term.derivative;
    if constexpr (P > 0) by_first[i] = term.parameters[0];
    if constexpr (P > 1) by_second[i] = term.parameters[1];
  }
}

// Counts: every element as if it were 0, which most are, and then the others, gathered.
template <class Likelihood, class T>
void evaluate_counts(const T* a, const T* x, const T* const* parameters, int n, Results<Likelihood, T>& out) {
  constexpr int P = Likelihood::kParameters;
  int16_t others[kBuffer];
  int count = 0;
  for (int i = 0; i < n; ++i) {
    others[count] = int16_t(i);
    count += x[i] != T(0);
  }
  if (count == n) return evaluate<Likelihood, false>(a, x, parameters, n, out);
  evaluate<Likelihood, true>(a, x, parameters, n, out);
  if (count == 0) return;
  T gathered_a[kBuffer], gathered_x[kBuffer], gathered[Results<Likelihood, T>::kArrays][kBuffer];
  const T* own[Results<Likelihood, T>::kArrays] = {};
  for (int j = 0; j < count; ++j) gathered_a[j] = a[others[j]], gathered_x[j] = x[others[j]];
  for (int k = 0; k < P; ++k) {
    for (int j = 0; j < count; ++j) gathered[k][j] = parameters[k][others[j]];
    own[k] = gathered[k];
  }
  Results<Likelihood, T> some;
  evaluate<Likelihood, false>(gathered_a, gathered_x, own, count, some);
  for (int j = 0; j < count; ++j) {
    out.value[others[j]] = some.value[j], out.by_recon[others[j]] = some.by_recon[j];
    for (int k = 0; k < P; ++k) out.by_parameter[k][others[j]] = some.by_parameter[k][j];
  }
}

template <class T>
bool are_counts(const T* x, const T* mask, int n) {  // as are_unit
  int negative = 0;
  for (int i = 0; i < n; ++i) negative |= (x[i] < T(0)) & (!mask || mask[i] != T(0));
  return !negative;
}

// ---- rows -----------------------------------------------------------------------------------------------------------

// Calls chunk(column, n) for the row's chunks.
template <class Chunk>
void for_each_chunk(int64_t features, Chunk chunk) {
  for (int64_t column = 0; column < features; column += kChunk) {
    chunk(column, int(features - column < kChunk ? features - column : kChunk));
  }
}

// A chunk of one row: besides what read() takes in place, rows that are broadcast or lie in wider ones.
template <class T>
const T* read_in_row(const Shape& shape, const Operand& operand, int64_t row, int64_t column, int n, T* buffer) {
  if (shape.dims == 2 && shape.sizes[1] == shape.features && operand.strides[1] == 1 && operand.type == kTypeCode<T>) {
    return static_cast<const T*>(operand.data) + row * operand.strides[0] + column;
  }
  return read(shape, operand, row * shape.features + column, n, buffer);
}

// log sum exp of a row, by its largest element.
template <class T>
T log_sum_exp(const Shape& shape, const Operand& scores, int64_t row) {
  T buffer[kBuffer], lanes[kSumLanes];
  for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] = -Real<T>::kInfinity;
  int nan = 0;
  for_each_chunk(shape.features, [&](int64_t column, int n) {
    const T* const s = read_in_row(shape, scores, row, column, n, buffer);
    int i = 0;
    for (; i + kSumLanes <= n; i += kSumLanes) {
      for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] = at_least(lanes[lane], s[i + lane]);
    }
    for (int lane = 0; i + lane < n; ++lane) lanes[lane] = at_least(lanes[lane], s[i + lane]);
    for (int k = 0; k < n; ++k) nan |= s[k] != s[k];
  });
  T largest = lanes[0];
  for (const T lane : lanes) largest = at_least(largest, lane);
  if (nan || absolute(largest) == Real<T>::kInfinity) return T(__builtin_nan(""));  // as torch's softmax
  double total = 0;
  for_each_chunk(shape.features, [&](int64_t column, int n) {
    const T* __restrict const s = read_in_row(shape, scores, row, column, n, buffer);
    T power[kBuffer];
    for (int i = 0; i < n; ++i) power[i] = exp_negative(s[i] - largest);
    total += sum(power, n);
  });
  return T(double(largest) + log(total));
}

// One call's kernel: group after group, row after row.
template <class Likelihood, class T>
class Rows {
  static constexpr int P = Likelihood::kParameters;

 public:
  Rows(const Objective& a, T* scratch)
      : a_(a), features_(a.shape.features), derivatives_(a.softmax && a.gradient.data ? scratch : nullptr) {}

  bool run(int64_t first_row, int64_t end_row, int64_t group) {  // whether the data was legal
    for (int k = 0; k < P; ++k) {
      if (!a_.column_sums[k]) continue;
      columns_[k] = static_cast<T*>(a_.column_sums[k]) + group * features_;
      for (int64_t i = 0; i < features_; ++i) columns_[k][i] = 0;
    }
    for (int64_t row = first_row; row < end_row; ++row) one(row);
    return legal_;
  }

 private:
  // Over one row, before the factors: the value, and its derivatives by recon and by each parameter.
  struct Totals {
    double value = 0, by_recon = 0, by_parameter[kMaxParameters] = {};
    bool selected = false;  // an element, by a mask
  };

  void one(int64_t row) {
    const T normalizer = a_.softmax ? log_sum_exp<T>(a_.shape, a_.recon, row) : T(0);
    const T library = T(a_.log_library ? a_.log_library[row] : 0);
    const double scale = a_.factor * (a_.upstream ? a_.upstream[row] : 1);
    Totals totals;
    for_each_chunk(features_,
                   [&](int64_t column, int n) { chunk(row, column, n, normalizer, library, T(scale), totals); });
    if (a_.sums) a_.sums[row] = totals.value;
    if (a_.library_gradient) a_.library_gradient[row] = scale * totals.by_recon;
    for (int k = 0; k < P; ++k) {
      if (a_.row_sums[k]) a_.row_sums[k][row] = scale * totals.by_parameter[k];
    }
    if (!derivatives_) return;
    if (a_.is_weighted && a_.is_masked && !totals.selected) return leave_out(row);
    through_softmax(row, normalizer, T(scale), T(totals.by_recon));
  }

  void chunk(int64_t row, int64_t column, int n, T normalizer, T library, T scale, Totals& totals) {
    const int64_t first = row * features_ + column;
    const T* a = read_in_row(a_.shape, a_.recon, row, column, n, recon_);
    const T* const x = read_in_row(a_.shape, a_.target, row, column, n, target_);
    if (a_.softmax) {
      for (int i = 0; i < n; ++i) mean_[i] = (a[i] - normalizer) + library;
      a = mean_;
    }
    const T* own[Results<Likelihood, T>::kArrays] = {};
    for (int k = 0; k < P; ++k) own[k] = read_in_row(a_.shape, a_.parameters[k], row, column, n, parameter_[k]);
    const T* const weight = factors(a_.shape, a_.weight, a_.weight_number, first, n, factor_);
    if constexpr (Likelihood::kIsCount) {
      legal_ &= are_counts(x, a_.is_masked ? weight : nullptr, n);
      evaluate_counts<Likelihood>(a, x, own, n, results_);
    } else {
      evaluate<Likelihood, false>(a, x, own, n, results_);
    }
    if (weight && a_.is_masked) {
      for (int i = 0; i < n; ++i) totals.selected |= weight[i] != T(0);
    }
    if (weight) {
      const auto apply = a_.is_masked ? select<T> : multiply<T>;
      apply(results_.value, weight, n);
      apply(results_.by_recon, weight, n);
      for (int k = 0; k < P; ++k) apply(results_.by_parameter[k], weight, n);
    }
    if (a_.sums) totals.value += sum(results_.value, n);
    if (derivatives_ || a_.library_gradient) totals.by_recon += sum(results_.by_recon, n);
    if (derivatives_) {
      for (int i = 0; i < n; ++i) derivatives_[column + i] = results_.by_recon[i];
    } else if (a_.gradient.data) {
      emit(a_.gradient, first, n, results_.by_recon, scale);
    }
    for (int k = 0; k < P; ++k) {
      if (a_.row_sums[k]) totals.by_parameter[k] += sum(results_.by_parameter[k], n);
      if (a_.column_sums[k]) add(results_.by_parameter[k], scale, n, columns_[k] + column);
      if (a_.parameter_gradients[k].data) emit(a_.parameter_gradients[k], first, n, results_.by_parameter[k], scale);
    }
  }

  // a_j = score_j - log sum exp(scores), so d a_j / d score_i = [i = j] - p_i, p = softmax: with d the derivatives by
  // a, d value / d score_i = d_i - p_i sum(d).
  void through_softmax(int64_t row, T normalizer, T scale, T total) {
    for_each_chunk(features_, [&](int64_t column, int n) {
      const int64_t first = row * features_ + column;
      const T* __restrict const scores = read_in_row(a_.shape, a_.recon, row, column, n, recon_);
      const T* __restrict const d = derivatives_ + column;
      T* __restrict const out = place(a_.gradient, first, gradient_);
      for (int i = 0; i < n; ++i) out[i] = scale * fma(-exp_negative(scores[i] - normalizer), total, d[i]);
      write(a_.shape, a_.gradient, first, n, out);
    });
  }

  // A row of which nothing counts: not even a NaN among its scores, since no element needs the normalizer.
  void leave_out(int64_t row) {
    for_each_chunk(features_, [&](int64_t column, int n) {
      const int64_t first = row * features_ + column;
      T* const out = place(a_.gradient, first, gradient_);
      for (int i = 0; i < n; ++i) out[i] = T(0);
      write(a_.shape, a_.gradient, first, n, out);
    });
  }

  static void add(const T* __restrict from, T scale, int n, T* __restrict sums) {
    for (int i = 0; i < n; ++i) sums[i] = fma(scale, from[i], sums[i]);
  }

  void emit(const Operand& to, int64_t first, int n, const T* __restrict derivative, T scale) {
    T* __restrict const out = place(to, first, gradient_);
    for (int i = 0; i < n; ++i) out[i] = scale * derivative[i];
    write(a_.shape, to, first, n, out);
  }

  const Objective& a_;
  const int64_t features_;
  T* const derivatives_;  // [features], of a row, by the log of its means; null: not needed
  bool legal_ = true;
  T* columns_[kMaxParameters] = {};  // [features], of the group
  Results<Likelihood, T> results_;
  T recon_[kBuffer], target_[kBuffer], mean_[kBuffer], factor_[kBuffer], gradient_[kBuffer];
  T parameter_[Results<Likelihood, T>::kArrays][kBuffer];
};

template <class T>
bool objective_by_rows(const Objective& a, int64_t begin, int64_t end, void* scratch) {
  const Groups groups(a.shape, a.column_sums[0] || a.column_sums[1]);
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    bool legal = true;
    if constexpr (Likelihood::kByRows) {
      Rows<Likelihood, T> rows(a, static_cast<T*>(scratch));
      for (int64_t group = begin; group < end; ++group) {
        const int64_t first = group * groups.rows_each, last = first + groups.rows_each;
        legal &= rows.run(first, last < groups.rows ? last : groups.rows, group);
      }
    }
    return legal;
  });
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
