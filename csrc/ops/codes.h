// The integer codes in which operators name a scale, a likelihood and a reduction: places in lists. pyvae/_codes.py has
// the same, and refuses an extension that says otherwise.
#pragma once

#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {

constexpr auto kScaleNames = names_of(Scales{});
constexpr auto kLikelihoodNames = names_of(Likelihoods{});

// What the likelihoods say of themselves (math/terms.h), by their codes.
struct Trait {
  bool is_probability, has_unit_target, takes_pos_weight, is_count;
  int parameters, first;
  Softmax softmax;
};
template <class... Members>
constexpr Table<Trait, sizeof...(Members)> traits_of(Types<Members...>) {
  return {{Trait{.is_probability = Members::kProbability,
                 .has_unit_target = Members::kUnitTarget,
                 .takes_pos_weight = kTakesPosWeight<Members>,
                 .is_count = Members::kIsCount,
                 .parameters = Members::kParameters,
                 .first = Members::kFirst,
                 .softmax = Members::kSoftmax}...}};
}
constexpr auto kTraits = traits_of(Likelihoods{});
constexpr Table<const char*, 3> kSoftmaxNames = {{"never", "optional", "always"}};

// The last is the divergence's alone: nothing is summed.
enum Reduction : int64_t { kNone, kSum, kBatchMean, kReductions, kElements = kReductions, kDivergenceReductions };
constexpr Table<const char*, kReductions> kReductionNames = {{"none", "sum", "batchmean"}};
constexpr Table<const char*, kDivergenceReductions> kDivergenceReductionNames = {
    {"none", "sum", "batchmean", "elements"}};
// Of a log density, by whether its elements are not summed.
constexpr Table<const char*, 2> kDensityReductionNames = {{"none", "elements"}};

}  // namespace pyvae
