// The softmax over a row, in two stages around the likelihood: before it the normalizer, after it the gradient through
// the softmax.
#pragma once

#include "cpu/chunk.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// The largest score of a row. It is NaN if one score is NaN or inf, or if all are -inf, so that log sum exp is NaN, as
// in torch.
template <class T>
class Largest {
 public:
  Largest() {
    for (T& lane : lanes_) lane = -Real<T>::kInfinity;
  }

  void look(const T* s, int n) {
    int i = 0, nan = 0;
    for (; i + kSumLanes <= n; i += kSumLanes) {
      for (int lane = 0; lane < kSumLanes; ++lane) lanes_[lane] = at_least(lanes_[lane], s[i + lane]);
    }
    for (int lane = 0; i + lane < n; ++lane) lanes_[lane] = at_least(lanes_[lane], s[i + lane]);
    for (int k = 0; k < n; ++k) nan |= s[k] != s[k];
    nan_ |= nan != 0;
  }

  T value() const {
    T most = lanes_[0];
    for (const T lane : lanes_) most = at_least(most, lane);
    return nan_ || absolute(most) == Real<T>::kInfinity ? T(__builtin_nan("")) : most;
  }

 private:
  T lanes_[kSumLanes];
  bool nan_ = false;
};

// Sum of e^(score - largest).
template <class T>
PYVAE_NOINLINE double sum_exp(const T* __restrict s, T largest, int n) {
  T power[kBuffer];
  for (int i = 0; i < n; ++i) power[i] = exp_negative(s[i] - largest);
  return sum(power, n);
}

// The logs of the means: score - log sum exp + log library.
template <class T>
PYVAE_NOINLINE void log_means(const T* __restrict scores, T normalizer, T library, int n, T* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = (scores[i] - normalizer) + library;
}

// a_j = score_j - log sum exp(scores), so d a_j / d score_i = [i = j] - p_i, p = softmax: with d the derivatives by a,
// d value / d score_i = d_i - p_i sum(d).
template <class T>
PYVAE_NOINLINE void through_softmax(const T* __restrict scores, T normalizer, const T* __restrict d, T sum_of_d, int n,
                                    T* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = fma(-exp_negative(scores[i] - normalizer), sum_of_d, d[i]);
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
