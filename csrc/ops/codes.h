// The integer codes in which operators name a scale, a likelihood and a reduction (pyvae/_checks.py lists the names).
#pragma once

#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {

#define PYVAE_COUNT(Functor, name) +1
constexpr int64_t kScales = 0 PYVAE_SCALES(PYVAE_COUNT);
constexpr int64_t kLikelihoods = 0 PYVAE_LIKELIHOODS(PYVAE_COUNT);
#undef PYVAE_COUNT

#define PYVAE_NAME(Functor, name) name,
constexpr const char* kScaleNames[] = {PYVAE_SCALES(PYVAE_NAME)};
constexpr const char* kLikelihoodNames[] = {PYVAE_LIKELIHOODS(PYVAE_NAME)};
#undef PYVAE_NAME

#define PYVAE_TRAIT(Functor, name) Functor::kTakesPosWeight,
constexpr bool kTakesPosWeight[] = {PYVAE_LIKELIHOODS(PYVAE_TRAIT)};
#undef PYVAE_TRAIT

enum Reduction : int64_t { kNone, kSum, kBatchMean };
constexpr int64_t kReductions = 3;
constexpr const char* kReductionNames[] = {"none", "sum", "batchmean"};

}  // namespace pyvae
