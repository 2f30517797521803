// Evaluates a likelihood over the elements of a chunk: loops that g++ vectorizes, and the table through which the
// skeleton (objective.h) calls them. The loops are compiled once per likelihood, everything else once per type.
#pragma once

#include "cpu/chunk.h"
#include "math/exact.h"
#include "math/likelihood.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// ---- data that is an error ------------------------------------------------------------------------------------------

// Elements that `mask` excludes are not checked. A NaN passes the check and reaches the loss.
template <class T>
PYVAE_NOINLINE bool are_unit(const T* x, const T* mask, int n) {
  int outside = 0;
  for (int i = 0; i < n; ++i) outside |= ((x[i] < T(0)) | (x[i] > T(1))) & (!mask || mask[i] != T(0));
  return !outside;
}

template <class T>
PYVAE_NOINLINE bool are_counts(const T* x, const T* mask, int n) {
  int negative = 0;
  for (int i = 0; i < n; ++i) negative |= (x[i] < T(0)) & (!mask || mask[i] != T(0));
  return !negative;
}

// ---- loops ----------------------------------------------------------------------------------------------------------

// What a loop reads besides recon and target: the parameters; what is prepared from them, per element; or what is
// prepared from them, the same for all elements. g++ does not vectorize computations on a single number inside a loop,
// so single numbers are always prepared.
enum Given { kParameters, kPrepared, kPreparedNumbers, kGivens };

// The outputs of a loop, [n] each.
template <class T>
struct Results {
  T* value;
  T* by_recon;  // times factor; by_parameter too
  T* by_parameter[kMaxParameters];
};

template <class T>
using Evaluate = bool (*)(const T* recon, const T* target, const T* const* given, T factor, int n,
                          const Results<T>& out);

template <class Bits>
Bits larger(Bits a, Bits b) {
  return a > b ? a : b;
}

// Returns false if a number that must be in [0, 1] may be outside. As integers, the numbers in [0, 1] are those up to
// the bits of 1, which costs one operation each. The bits of -0 and NaN are larger, so they return false too.
template <class L, bool kZero, bool kGradient, Given kGiven, class T>
bool evaluate_all(const T* __restrict recon, const T* __restrict target, const T* const* given, T factor, int n,
                  const Results<T>& out) {
  constexpr int P = L::kParameters, N = kGiven == kParameters ? kReads<L> : L::kPrepared;
  using Bits = typename Real<T>::Bits;
  const T* in[at_least_one(N)] = {};
  T* by_parameter[at_least_one(P)] = {};
  T numbers[at_least_one(N)] = {};
  for (int k = 0; k < N; ++k) in[k] = given[k], numbers[k] = given[k][0];
  for (int k = 0; k < P; ++k) by_parameter[k] = out.by_parameter[k];
  T* __restrict const value = out.value;
  T* __restrict const by_recon = out.by_recon;
  Bits most = 0;
  PYVAE_INDEPENDENT
  for (int i = 0; i < n; ++i) {
    T own[at_least_one(N)] = {};
    for (int k = 0; k < N; ++k) own[k] = kGiven == kPreparedNumbers ? numbers[k] : in[k][i];
    Terms<T, P> term;  // not from a lambda, which g++ would not inline, and so not vectorize
    if constexpr (kZero) {
      term = L::template evaluate_zero<Exact>(recon[i], own);
    } else if constexpr (kGiven == kParameters) {
      term = evaluate<L, Exact>(recon[i], target[i], own);
    } else {
      term = L::template evaluate<Exact>(recon[i], target[i], own);
    }
    value[i] = term.value;
    if constexpr (kGradient) {
      by_recon[i] = factor * term.derivative;
      for (int k = 0; k < P; ++k) by_parameter[k][i] = factor * term.parameters[k];
    }
    if (L::kProbability) most = larger(most, bit_cast<Bits>(recon[i]));
    if (L::kUnitTarget) most = larger(most, bit_cast<Bits>(target[i]));
  }
  return most <= bit_cast<Bits>(T(1));
}

template <class T>
PYVAE_NOINLINE void gather(const T* from, const int16_t* places, int count, T* __restrict out) {
  for (int j = 0; j < count; ++j) out[j] = from[places[j]];
}
template <class T>
PYVAE_NOINLINE void scatter(const T* __restrict from, const int16_t* places, int count, T* out) {
  for (int j = 0; j < count; ++j) out[places[j]] = from[j];
}

// Counts: evaluates every element as if the count were 0, which most are, then gathers the others and evaluates them.
template <class L, bool kGradient, class T>
bool evaluate_counts(const T* a, const T* x, const T* const* given, T factor, int n, const Results<T>& out) {
  constexpr int P = L::kParameters, N = kReads<L>;
  int16_t others[kBuffer];
  int count = 0;
  for (int i = 0; i < n; ++i) {
    others[count] = int16_t(i);
    count += x[i] != T(0);
  }
  if (count == n) return evaluate_all<L, false, kGradient, kParameters>(a, x, given, factor, n, out);
  evaluate_all<L, true, kGradient, kParameters>(a, x, given, factor, n, out);
  if (count == 0) return true;
  alignas(64) T room[2 + N + 2 + P][kBuffer];  // for the others: recon, target, parameters; value, derivatives
  gather(a, others, count, room[0]);
  gather(x, others, count, room[1]);
  const T* in[at_least_one(N)] = {};
  for (int k = 0; k < N; ++k) gather(given[k], others, count, room[2 + k]), in[k] = room[2 + k];
  Results<T> some = {room[2 + N], room[3 + N], {}};
  for (int k = 0; k < P; ++k) some.by_parameter[k] = room[4 + N + k];
  evaluate_all<L, false, kGradient, kParameters>(room[0], room[1], in, factor, count, some);
  scatter(some.value, others, count, out.value);
  if (!kGradient) return true;
  scatter(some.by_recon, others, count, out.by_recon);
  for (int k = 0; k < P; ++k) scatter(some.by_parameter[k], others, count, out.by_parameter[k]);
  return true;
}

template <class L, class T>
void prepare(const T* const* parameters, int n, T* const* out) {
  constexpr int N = kReads<L>, F = L::kPrepared;
  const T* in[N];
  T* prepared[F];
  for (int k = 0; k < N; ++k) in[k] = parameters[k];
  for (int k = 0; k < F; ++k) prepared[k] = out[k];
  PYVAE_INDEPENDENT
  for (int i = 0; i < n; ++i) {
    T own[N], ready[F];
    for (int k = 0; k < N; ++k) own[k] = in[k][i];
    L::template prepare<Exact>(own, ready);
    for (int k = 0; k < F; ++k) prepared[k][i] = ready[k];
  }
}

// ---- the table of a likelihood --------------------------------------------------------------------------------------

template <class T>
struct Loops {
  int parameters, reads, prepared;
  bool has_pos_weight, is_probability, has_unit_target, is_count;
  Evaluate<T> evaluate[kGivens][2];  // indexed by Given, and by whether gradients are computed
  void (*prepare)(const T* const* parameters, int n, T* const* out);
};

template <class L, class T>
constexpr Loops<T> loops_of() {
  Loops<T> out{L::kParameters, kReads<L>,   L::kPrepared, L::kHasPosWeight, L::kProbability,
               L::kUnitTarget, L::kIsCount, {},           nullptr};
  if constexpr (L::kIsCount) {
    out.evaluate[kParameters][0] = evaluate_counts<L, false, T>;
    out.evaluate[kParameters][1] = evaluate_counts<L, true, T>;
  } else {
    out.evaluate[kParameters][0] = evaluate_all<L, false, false, kParameters, T>;
    out.evaluate[kParameters][1] = evaluate_all<L, false, true, kParameters, T>;
  }
  if constexpr (L::kPrepared > 0) {
    out.evaluate[kPrepared][0] = evaluate_all<L, false, false, kPrepared, T>;
    out.evaluate[kPrepared][1] = evaluate_all<L, false, true, kPrepared, T>;
    out.evaluate[kPreparedNumbers][0] = evaluate_all<L, false, false, kPreparedNumbers, T>;
    out.evaluate[kPreparedNumbers][1] = evaluate_all<L, false, true, kPreparedNumbers, T>;
    out.prepare = prepare<L, T>;
  }
  return out;
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
