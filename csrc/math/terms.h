// A likelihood's traits, and what it returns.
#pragma once

#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// Whether recon may hold scores: the mean is then library * softmax(recon) over the row.
enum class Softmax { kNever, kOptional, kAlways };

constexpr int kMaxParameters = 3, kMaxPrepared = 4;

// The protocol of every likelihood. For one element:
//   evaluate<Math>(recon, target, parameters)  its value in nats and its derivatives, as Terms
//   evaluate_zero<Math>(recon, parameters)     for counts: the same for target 0; if kLogMean, recon = -inf gives 0
//   prepare<Math>(parameters, prepared)        if kPrepared: what depends on the parameters alone. evaluate then takes
//                                              `prepared` in their place
//   prepare_first<Math>(parameter, own)        if kFirst: what depends on the first parameter alone. In most calls
//                                              that is one row. evaluate and evaluate_zero also take `own` in its place
struct Traits {
  static constexpr bool kProbability = false;   // recon outside [0, 1] is an error
  static constexpr bool kUnitTarget = false;    // a target outside [0, 1] is an error
  static constexpr bool kIsCount = false;       // a negative target is an error; most targets are 0
  static constexpr bool kLogMean = true;        // for counts: recon is the log of the mean, else the mean itself
  static constexpr int kParameters = 0;         // its own parameters: evaluate gives the derivative by each
  static constexpr bool kHasPosWeight = false;  // evaluate also reads a pos_weight, after them: no derivative by it
  static constexpr int kPrepared = 0;
  static constexpr int kFirst = 0;
  static constexpr Softmax kSoftmax = Softmax::kNever;
  using WithPosWeight = void;  // the same likelihood with a pos_weight, if it takes one
};

struct CountTraits : Traits {
  static constexpr bool kIsCount = true;
  static constexpr Softmax kSoftmax = Softmax::kOptional;
};

template <class Likelihood>
constexpr bool kTakesPosWeight = !__is_same(typename Likelihood::WithPosWeight, void);

// How many numbers evaluate or prepare reads besides recon and target.
template <class Likelihood>
constexpr int kReads = Likelihood::kParameters + int(Likelihood::kHasPosWeight);

// The length of an array for `count` elements: C++ has no arrays of length 0.
constexpr int at_least_one(int count) { return count > 0 ? count : 1; }

// One element's value in nats, and its derivatives by recon and by each of the likelihood's parameters.
template <class T, int P>
struct Terms {
  T value, derivative;
  T parameters[at_least_one(P)];
};

// Takes the parameters themselves, whether or not the likelihood prepares them.
template <class Likelihood, class Math, class T>
PYVAE_HD Terms<T, Likelihood::kParameters> evaluate(T recon, T target,
                                                    const T (&parameters)[at_least_one(kReads<Likelihood>)]) {
  if constexpr (Likelihood::kPrepared > 0) {
    T prepared[Likelihood::kPrepared];
    Likelihood::template prepare<Math>(parameters, prepared);
    return Likelihood::template evaluate<Math>(recon, target, prepared);
  } else {
    return Likelihood::template evaluate<Math>(recon, target, parameters);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
