// Timing one kernel beside a device-to-device copy of as many bytes.
#pragma once

#include "cases.h"

namespace pyvae {
namespace timing {

// The CSV's columns. bytes: of a launch, read and written; launches: of a sample, one after another; us: of a launch,
// the 20th, 50th and 80th percentile of the samples; gbps: 1e9 bytes a second; share: of the copy's, the median of the
// samples; blocks: of the grid; the last three are 0 where CUDA does not tell. Where no bytes are moved there is
// nothing to compare with.
constexpr const char* kColumns =
    "kernel,type,rows,features,bytes,samples,launches,us_p20,us,us_p80,gbps,copy_us,copy_gbps,share,blocks,registers,"
    "blocks_per_sm";

// Prints one line of CSV. `cache`: bytes of the L2 cache.
void measure(const Kernel& kernel, const Problem& problem, int samples, int64_t cache);

}  // namespace timing
}  // namespace pyvae
