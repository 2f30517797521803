// The threads of a decoder-side call.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>

#include "ops/arguments.h"
#include "ops/codes.h"

namespace pyvae {
namespace cpu {

// Shares `count` pieces of a call among threads, at least `grain` to each, and refuses data that the kernel, a
// bool(int64_t begin, int64_t end), found illegal.
template <class Kernel>
void share(const LikelihoodArguments& a, int64_t count, int64_t grain, const Kernel& kernel) {
  if (a.recon.numel() == 0) return;
  std::atomic<bool> legal{true};
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (!kernel(begin, end)) legal = false;
  });
  const Trait& trait = kTraits.values[a.likelihood];
  TORCH_CHECK_VALUE(
      legal, "pyvae.elbo_loss, elbo_terms or reconstruction_loss, likelihood='", kLikelihoodNames[a.likelihood], "': ",
      trait.is_count         ? "`target` must hold counts >= 0, but holds negative values"
      : trait.is_probability ? "`recon` and `target` must lie in [0, 1], but hold values outside; logits go with "
                               "likelihood='bernoulli_logits'"
                             : "`target` must lie in [0, 1], but holds values outside",
      trait.is_count ? "" : "; bytes are to be divided by 255, and real numbers go with likelihood='gaussian'");
}

}  // namespace cpu
}  // namespace pyvae
