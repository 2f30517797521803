// The library's own kernels, unmodified, but only those that are measured: a fifth of them, so that trying another
// tuning takes seconds. With measured.h, `choose` below is what leaves the others out.
#include "cuda/launch.cuh"
#include "measured.h"

namespace pyvae {
namespace cuda {

// Called instead of that of launch.cuh: `launch`, always a lambda made for the call, suits && better than const &. Of
// the ways in the list it knows float32 and bfloat16, and it has no general kernels.
template <class List, template <class> class General, class Suits, class Launch>
const char* choose(bool, const Suits& suits, Launch&& launch) {
  const char* error = "no kernel is measured that takes this call";
  any_of(List{}, [&](auto way) {
    using Way = typename decltype(way)::type;
    constexpr int8_t kStored = kTypeCode<typename Way::Stored>;
    if constexpr (kStored == kTypeCode<float> || kStored == kTypeCode<BFloat16>) {
      if (!suits(way)) return false;
      error = launch(way);
      return true;
    }
    return false;
  });
  return error;
}

}  // namespace cuda
}  // namespace pyvae

#include "cuda/latent_backward.cu"
#include "cuda/latent_forward.cu"
#include "cuda/objective.cu"
#include "cuda/objective_backward.cu"
