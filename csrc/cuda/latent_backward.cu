// Encoder side, backward: the noise is drawn again, nothing of it was stored.
#include "cuda/latent.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Scale, class Way>
__global__ void __launch_bounds__(kThreads, blocks_of<Scale, Way>(kGeneralLatentBackwardBlocks))
    latent_backward_kernel(const __grid_constant__ LatentBackward a) {
  const SampleGradient<Scale, Way> map{a, resolve(a.seed)};
  map_and_reduce<Way::kVector, false>(a.partition, blockIdx.x, Workspace{}, map, [](int64_t, double) {});
}

}  // namespace

const char* launch(const LatentBackward& a, void* stream) {
  const auto packed = [&a](int8_t type) {
    return is_packed(a.shape, a.grad_kl) && is_packed(a.shape, a.grad_z, type) && is_packed(a.shape, a.grad_mu, type) &&
           is_packed(a.shape, a.grad_scale, type);
  };
  return choose(a, packed, [&](auto scale, auto way) {
    const auto kernel = latent_backward_kernel<typename decltype(scale)::type, typename decltype(way)::type>;
    return run(kernel, a, a.partition.blocks, stream);
  });
}

}  // namespace cuda
}  // namespace pyvae
