// Of the library's lists, the members that are measured. Where the kernels name a list, these are found first, so that
// no others are compiled. A member's code is its place, here as there.
#pragma once

#include "math/gaussian.h"
#include "math/likelihood.h"

namespace pyvae {
namespace cuda {

using Likelihoods = Types<Bernoulli, BernoulliLogits, Gaussian>;
using Scales = Types<LogVariance>;

}  // namespace cuda
}  // namespace pyvae
