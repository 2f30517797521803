// What a likelihood says of itself, and what it returns.
#pragma once

#include "math/types.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// Whether recon may hold scores: the mean is then library * softmax(recon) over the row.
enum class Softmax { kNever, kOptional, kAlways };

constexpr int kMaxParameters = 3;

// Of most likelihoods. Those that go by rows have parameters of their own or counts for data, and an `evaluate` that
// returns Terms; the others have one that returns a Term, and vectors that may cross rows.
struct Traits {
  static constexpr bool kProbability = false;  // recon outside [0, 1] is an error
  static constexpr bool kUnitTarget = false;   // a target outside [0, 1] is one
  static constexpr bool kTakesPosWeight = false;
  // A negative target is an error, and most are 0: there is an evaluate_zero, and evaluate is for the others.
  static constexpr bool kIsCount = false;
  static constexpr bool kByRows = false;
  static constexpr int kParameters = 0;
  static constexpr Softmax kSoftmax = Softmax::kNever;
};

struct CountTraits : Traits {
  static constexpr bool kIsCount = true;
  static constexpr bool kByRows = true;
  static constexpr Softmax kSoftmax = Softmax::kOptional;
};

// One element's value in nats, and its derivative by recon.
template <class T>
struct Term {
  T value, derivative;
};

// And by each of its parameters.
template <class T, int P>
struct Terms {
  T value, derivative;
  T parameters[P > 0 ? P : 1];
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
