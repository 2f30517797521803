// Encoder side, forward: noise, sample and divergence in one launch.
#include "cuda/latent.cuh"
#include "cuda/launch.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Scale, class Access, class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<Access>)
    latent_forward_kernel(const __grid_constant__ LatentForward a) {
  const Sample<Scale, Access, T> map{a, resolve(a.key)};
  if (a.key.out && blockIdx.x == 0 && threadIdx.x == 0) *a.key.out = int64_t(map.key);
  const auto emit = [&a](int64_t row, double sum) { write(a.kl, row, sum * a.kl_factor); };
  map_and_reduce<V, true>(a.partition, blockIdx.x, a.workspace, map, emit, /*wanted=*/a.kl.data != nullptr);
}

template <class Scale>
const char* launch_as(const LatentForward& a, void* stream) {
  const auto packed = [&a](Type type) {
    return !a.eps.data && a.first_index % 4 == 0 && is_packed(a.shape, a.mu, type) &&
           is_packed(a.shape, a.scale, type) && is_packed_output(a.shape, a.z, type);
  };
  const int64_t blocks = a.partition.blocks;
  if (packed(Type::kFloat)) {
    return run(latent_forward_kernel<Scale, Packed<float>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kBFloat16)) {
    return run(latent_forward_kernel<Scale, Packed<BFloat16>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kHalf)) {
    return run(latent_forward_kernel<Scale, Packed<Half>, float, 8>, a, blocks, stream);
  }
  if (packed(Type::kDouble)) {
    return run(latent_forward_kernel<Scale, Packed<double>, double, 2>, a, blocks, stream);
  }
  if (a.in_double) return run(latent_forward_kernel<Scale, Any, double, 2>, a, blocks, stream);
  return run(latent_forward_kernel<Scale, Any, float, 4>, a, blocks, stream);
}

}  // namespace

const char* launch(const LatentForward& a, void* stream) {
  using Launch = const char* (*)(const LatentForward&, void*);
#define PYVAE_ENTRY(Scale, name) launch_as<Scale>,
  static constexpr Launch launches[] = {PYVAE_SCALES(PYVAE_ENTRY)};
#undef PYVAE_ENTRY
  return launches[a.scale_kind](a, stream);
}

bool has_image() {
  cudaFuncAttributes attributes;
  const cudaError_t status =
      cudaFuncGetAttributes(&attributes, latent_forward_kernel<LogVariance, Packed<float>, float, 8>);
  if (status != cudaSuccess) cudaGetLastError();
  return status == cudaSuccess;
}

}  // namespace cuda
}  // namespace pyvae
