// Decoder side: the one skeleton of all likelihoods. For each chunk it reads the operands, evaluates the likelihood
// once, and passes the results on: to memory, to sums per row or chunk, to sums per column. Only the two stages of a
// softmax work on whole rows.
#pragma once

#include "cpu/column_sums.h"
#include "cpu/evaluate.h"
#include "cpu/prepared.h"
#include "cpu/softmax.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class T>
void multiply(T* __restrict out, const T* __restrict by, int n) {
  for (int i = 0; i < n; ++i) out[i] *= by[i];
}

// Elements that the mask excludes get 0, whatever was computed for them.
template <class T>
void select(T* __restrict out, const T* __restrict mask, int n) {
  for (int i = 0; i < n; ++i) out[i] = mask[i] != T(0) ? out[i] : T(0);
}

template <class T>
class ObjectiveKernel {
 public:
  ObjectiveKernel(const Objective& a, const Loops<T>& loops, T* scratch)
      : a_(a), loops_(loops), chunks_(a.shape), with_gradient_(needs_gradient(a)), prepared_(loops, chunks_, scratch) {
    recon_.open(a.shape, chunks_, a.recon);
    target_.open(a.shape, chunks_, a.target);
    for (int k = 0; k < loops.parameters; ++k) parameters_[k].open(a.shape, chunks_, a.parameters[k]);
    if (loops.has_pos_weight) parameters_[loops.parameters].open(a.shape, chunks_, a.pos_weight, a.pos_weight_number);
    if (a.is_weighted) weight_.open(a.shape, chunks_, a.weight, a.weight_number);
    if (a.softmax && a.gradient.data) by_log_mean_ = scratch + prepared_.scratch(loops, chunks_);
  }

  static int64_t scratch(const Objective& a, const Loops<T>& loops) {
    const Chunks chunks(a.shape);
    const int64_t row = a.softmax && a.gradient.data ? Prepared<T>::width(chunks) : 0;
    return Prepared<T>::scratch(loops, chunks) + row;
  }

  bool run(int64_t begin, int64_t end) {  // computes units; returns whether the data was legal
    const Units units = a_.units();
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = unit * units.chunks_each, last = first + units.chunks_each;
      open_columns(unit);
      for (int64_t index = first; index < last && index < chunks_.count; ++index) {
        const Chunk c = chunks_[index];
        if (a_.softmax && c.column == 0) before_row(index, c);
        chunk(index, c);
        if (a_.softmax && c.column + c.features == a_.shape.features) after_row(index, c);
      }
      close_columns();
    }
    return legal_;
  }

 private:
  static bool needs_gradient(const Objective& a) {
    bool any = a.gradient.data || a.library_gradient || a.has_column_sums();
    for (int k = 0; k < kMaxParameters; ++k) {
      any |= a.parameter_gradients[k].data || a.by_parameter[k].rows || a.by_parameter[k].chunks;
    }
    return any;
  }

  // ---- a chunk ------------------------------------------------------------------------------------------------------

  void chunk(int64_t index, const Chunk& c) {
    const T* recon = recon_(c);
    const T* const target = target_(c);
    if (a_.softmax) recon = means(recon, c);
    const T* const weight = a_.is_weighted ? weight_(c) : nullptr;
    const T* const mask = a_.is_masked ? weight : nullptr;
    // A row's upstream gradient becomes part of the factor if no other factor comes before it.
    const bool in_factor = a_.upstream && c.rows == 1 && !a_.is_weighted && a_.factor == 1;
    const T factor = in_factor ? T(a_.upstream[c.row]) : T(a_.factor);
    const Results<T> out = places(c);
    if (!evaluate(recon, target, c, factor, out)) {
      if (loops_.is_probability) legal_ &= are_unit(recon, mask, c.n);
      if (loops_.has_unit_target) legal_ &= are_unit(target, mask, c.n);
    }
    if (loops_.is_count) legal_ &= are_counts(target, mask, c.n);

    if (weight && !mask) multiply(out.value, weight, c.n), for_gradients(out, multiply<T>, weight, c.n);
    if (with_gradient_ && a_.upstream && !in_factor) {
      for_gradients(out, multiply<T>, spread(a_.upstream, c, upstream_), c.n);
    }
    if (mask) select(out.value, mask, c.n), for_gradients(out, select<T>, mask, c.n);
    if (mask && a_.softmax) see_selected(mask, c);

    sum_up(a_.value, index, c, out.value);
    if (a_.elements.data) store(a_.elements, c, out.value);
    if (with_gradient_) hand_on(index, c, out);
  }

  bool evaluate(const T* recon, const T* target, const Chunk& c, T factor, const Results<T>& out) {
    const T* given[kMaxParameters + 1] = {};
    const T* prepared[kMaxPrepared] = {};
    const Given form = loops_.prepared > 0 ? prepared_(parameters_, c, prepared) : kParameters;
    if (form == kParameters) {
      for (int k = 0; k < loops_.reads; ++k) given[k] = parameters_[k](c);
    }
    const T* const* const in = form == kParameters ? given : prepared;
    return loops_.evaluate[form][with_gradient_](recon, target, in, factor, c.n, out);
  }

  // Where a chunk's results are computed: in place, if the operand is a run of T there.
  Results<T> places(const Chunk& c) {
    Results<T> out{place(a_.elements, c.first, value_), by_recon_, {}};
    if (by_log_mean_) {
      out.by_recon = by_log_mean_ + c.column;
    } else {
      out.by_recon = place(a_.gradient, c.first, by_recon_);
    }
    for (int k = 0; k < loops_.parameters; ++k) {
      out.by_parameter[k] = place(a_.parameter_gradients[k], c.first, by_parameter_[k]);
    }
    return out;
  }

  using Apply = void (*)(T* __restrict out, const T* __restrict by, int n);
  void for_gradients(const Results<T>& out, Apply apply, const T* by, int n) const {
    if (!with_gradient_) return;
    apply(out.by_recon, by, n);
    for (int k = 0; k < loops_.parameters; ++k) apply(out.by_parameter[k], by, n);
  }

  // ---- what becomes of the results ----------------------------------------------------------------------------------

  void hand_on(int64_t index, const Chunk& c, const Results<T>& out) {
    if (a_.softmax) {
      sum_row(out.by_recon, c);
    } else if (a_.gradient.data) {
      store(a_.gradient, c, out.by_recon);
    }
    for (int k = 0; k < loops_.parameters; ++k) {
      if (a_.parameter_gradients[k].data) store(a_.parameter_gradients[k], c, out.by_parameter[k]);
      sum_up(a_.by_parameter[k], index, c, out.by_parameter[k]);
      if (a_.column_sums[k]) columns_[k].add(c, out.by_parameter[k]);
    }
  }

  PYVAE_NOINLINE void store(const Operand& to, const Chunk& c, const T* from) {
    write(a_.shape, to, c.first, c.n, from);
  }

  void sum_up(const Sums& to, int64_t index, const Chunk& c, const T* from) const {
    if (to.chunks) to.chunks[index] = sum(from, c.n);
    if (to.rows && chunks_.length > 0) to.rows[index] = sum(from, c.n);
    if (to.rows && chunks_.length == 0) sum_rows(from, c.rows, c.features, to.rows + c.row);
  }

  void open_columns(int64_t unit) {
    for (int k = 0; k < loops_.parameters; ++k) {
      if (a_.column_sums[k]) columns_[k].open(chunks_, static_cast<T*>(a_.column_sums[k]) + unit * a_.shape.features);
    }
  }
  void close_columns() {
    for (int k = 0; k < loops_.parameters; ++k) {
      if (a_.column_sums[k]) columns_[k].close();
    }
  }

  // ---- a softmax, around the chunks of a row, or of several short ones ----------------------------------------------

  void before_row(int64_t index, const Chunk& c) {
    for (int r = 0; r < c.rows; ++r) {
      Largest<T> largest;
      for_row(index, c, r, [&](const T* scores, int n) { largest.look(scores, n); });
      const T most = largest.value();
      double total = 0;
      for_row(index, c, r, [&](const T* scores, int n) { total += sum_exp(scores, most, n); });
      normalizer_[r] = T(double(most) + log(total));  // log sum exp
      sum_of_derivatives_[r] = 0, selected_[r] = false;
    }
  }

  // Calls f(scores, n) for the parts of row r of chunk `c`, which is the first chunk of the row.
  template <class F>
  void for_row(int64_t index, const Chunk& c, int r, const F& f) {
    for (int64_t part = 0; part < chunks_.per_row; ++part) {
      const Chunk here = part == 0 ? c : chunks_[index + part];
      f(recon_(here) + r * here.features, here.features);
    }
  }

  const T* means(const T* scores, const Chunk& c) {
    for (int r = 0, i = 0; r < c.rows; ++r, i += c.features) {
      const T library = T(a_.log_library ? a_.log_library[c.row + r] : 0);
      log_means(scores + i, normalizer_[r], library, c.features, mean_ + i);
    }
    return mean_;
  }

  void sum_row(const T* by_log_mean, const Chunk& c) {
    if (!by_log_mean_ && !a_.library_gradient) return;
    double sums[kBuffer];
    sum_rows(by_log_mean, c.rows, c.features, sums);
    for (int r = 0; r < c.rows; ++r) sum_of_derivatives_[r] += sums[r];
  }

  void see_selected(const T* mask, const Chunk& c) {
    for (int r = 0, i = 0; r < c.rows; ++r) {
      for (int column = 0; column < c.features; ++column, ++i) selected_[r] |= mask[i] != T(0);
    }
  }

  void after_row(int64_t index, const Chunk& c) {
    for (int r = 0; r < c.rows && a_.library_gradient; ++r) a_.library_gradient[c.row + r] = sum_of_derivatives_[r];
    if (!by_log_mean_) return;
    for (int64_t part = chunks_.per_row - 1; part >= 0; --part) {
      const Chunk here = part == 0 ? c : chunks_[index - part];
      const T* const scores = recon_(here);
      T* const out = place(a_.gradient, here.first, by_recon_);
      for (int r = 0, i = 0; r < here.rows; ++r, i += here.features) {
        const T* const d = by_log_mean_ + here.column + i;
        through_softmax(scores + i, normalizer_[r], d, T(sum_of_derivatives_[r]), here.features, out + i);
        // If the mask excludes the whole row, its gradient is 0, even if a score is NaN: no element uses the
        // normalizer.
        const bool counts = !a_.is_weighted || !a_.is_masked || selected_[r];
        for (int k = 0; k < here.features && !counts; ++k) out[i + k] = T(0);
      }
      store(a_.gradient, here, out);
    }
  }

  const Objective& a_;
  const Loops<T>& loops_;
  const Chunks chunks_;
  const bool with_gradient_;
  bool legal_ = true;
  T* by_log_mean_ = nullptr;  // [width of a row], scratch for the derivatives of a row's chunks; null: no softmax
  Prepared<T> prepared_;
  Source<T> recon_, target_, weight_, parameters_[kMaxParameters + 1];  // after the last parameter, pos_weight
  ColumnSums<T> columns_[kMaxParameters];
  alignas(64) T value_[kBuffer];
  alignas(64) T by_recon_[kBuffer];
  alignas(64) T by_parameter_[kMaxParameters][kBuffer];
  alignas(64) T mean_[kBuffer];
  alignas(64) T upstream_[kBuffer];
  T normalizer_[kBuffer];               // per row of the chunk
  double sum_of_derivatives_[kBuffer];  // likewise; derivatives by the logs of the means
  bool selected_[kBuffer];              // likewise; whether the mask selects any element
};

// Calls f(loops) with the loops of the call's likelihood.
template <class T, class F>
auto with_loops(const Objective& a, const F& f) {
  return visit(Likelihoods{}, a.likelihood, [&](auto tag) {
    using L = typename decltype(tag)::type;
    static constexpr Loops<T> kLoops = loops_of<L, T>();
    if constexpr (kTakesPosWeight<L>) {
      static constexpr Loops<T> kWeighted = loops_of<typename L::WithPosWeight, T>();
      if (a.is_pos_weighted) return f(kWeighted);
    }
    return f(kLoops);
  });
}

template <class T>
bool objective(const Objective& a, int64_t begin, int64_t end, void* scratch) {
  if (begin >= end || a.shape.features == 0) return true;  // no element to read, and sums that are 0 already
  return with_loops<T>(
      a, [&](const Loops<T>& loops) { return ObjectiveKernel<T>(a, loops, static_cast<T*>(scratch)).run(begin, end); });
}

template <class T>
int64_t objective_scratch(const Objective& a) {
  return with_loops<T>(a, [&](const Loops<T>& loops) { return ObjectiveKernel<T>::scratch(a, loops); });
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
