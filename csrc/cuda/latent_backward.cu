// Encoder side, backward: the noise is drawn again, nothing of it was stored.
#include "cuda/latent.cuh"
#include "cuda/launch.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Scale, class Access, class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<Access>)
    latent_backward_kernel(const __grid_constant__ LatentBackward a) {
  const SampleGradient<Scale, Access, T> map{a, resolve(a.key)};
  map_and_reduce<V, false>(a.partition, blockIdx.x, Workspace{}, map, [](int64_t, double) {});
}

template <class Scale>
const char* launch_as(const LatentBackward& a, void* stream) {
  const auto packed = [&a](Type type) {
    return !a.eps.data && a.first_index % 4 == 0 && is_packed(a.shape, a.grad_kl) && is_packed(a.shape, a.mu, type) &&
           is_packed(a.shape, a.scale, type) && is_packed(a.shape, a.grad_z, type) &&
           is_packed_output(a.shape, a.grad_mu, type) && is_packed_output(a.shape, a.grad_scale, type);
  };
  const int64_t blocks = a.partition.blocks;
  if (packed(Type::kFloat)) {
    return run(latent_backward_kernel<Scale, Packed<float>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kBFloat16)) {
    return run(latent_backward_kernel<Scale, Packed<BFloat16>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kHalf)) {
    return run(latent_backward_kernel<Scale, Packed<Half>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kDouble)) {
    return run(latent_backward_kernel<Scale, Packed<double>, double, 2>, a, blocks, stream);
  }
  if (a.in_double) return run(latent_backward_kernel<Scale, Any, double, 2>, a, blocks, stream);
  return run(latent_backward_kernel<Scale, Any, float, 4>, a, blocks, stream);
}

}  // namespace

const char* launch(const LatentBackward& a, void* stream) {
  using Launch = const char* (*)(const LatentBackward&, void*);
#define PYVAE_ENTRY(Scale, name) launch_as<Scale>,
  static constexpr Launch launches[] = {PYVAE_SCALES(PYVAE_ENTRY)};
#undef PYVAE_ENTRY
  return launches[a.scale_kind](a, stream);
}

}  // namespace cuda
}  // namespace pyvae
