// The integer codes in which operators name a scale, a likelihood and a reduction: places in lists.
#pragma once

#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {

constexpr auto kScaleNames = names_of(Scales{});
constexpr auto kLikelihoodNames = names_of(Likelihoods{});

enum Reduction : int64_t { kNone, kSum, kBatchMean, kReductions };
constexpr Table<const char*, kReductions> kReductionNames = {{"none", "sum", "batchmean"}};

}  // namespace pyvae
