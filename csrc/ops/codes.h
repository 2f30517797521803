// The integer codes by which operators name a scale, a likelihood and a reduction: indices into lists. pyvae/_codes.py
// has the same lists and rejects an extension whose lists differ.
#pragma once

#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {

constexpr auto kScaleNames = names_of(Scales{});
constexpr auto kLikelihoodNames = names_of(Likelihoods{});

// The likelihoods' traits (math/terms.h), by code.
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

// Only the divergence takes the last one, which sums nothing.
enum Reduction : int64_t { kNone, kSum, kBatchMean, kReductions, kElements = kReductions, kDivergenceReductions };
constexpr Table<const char*, kReductions> kReductionNames = {{"none", "sum", "batchmean"}};
constexpr Table<const char*, kDivergenceReductions> kDivergenceReductionNames = {
    {"none", "sum", "batchmean", "elements"}};
// For a log density; the index says whether the elements are left unsummed.
constexpr Table<const char*, 2> kDensityReductionNames = {{"none", "elements"}};

}  // namespace pyvae
