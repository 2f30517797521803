// Encoder side, forward: noise, sample and divergence in one launch.
#include "cuda/latent.cuh"

namespace pyvae {
namespace cuda {
namespace {

template <class Scale, class Way>
__global__ void __launch_bounds__(kThreads, blocks_of<Scale, Way>(Way::kBlocks))
    latent_forward_kernel(const __grid_constant__ LatentForward a) {
  const Sample<Scale, Way> map{a, resolve(a.seed)};
  if (a.seed.out && blockIdx.x == 0 && threadIdx.x == 0) *a.seed.out = int64_t(map.seed);
  const auto emit = [&a](int64_t row, double sum) { write(a.kl, row, sum * a.kl_factor); };
  map_and_reduce<Way::kVector, true>(a.partition, blockIdx.x, a.workspace, map, emit, /*wanted=*/a.kl.data != nullptr);
}

}  // namespace

const char* launch(const LatentForward& a, void* stream) {
  const auto packed = [&a](int8_t type) { return is_packed(a.shape, a.z, type); };
  return choose(a, packed, [&](auto scale, auto way) {
    const auto kernel = latent_forward_kernel<typename decltype(scale)::type, typename decltype(way)::type>;
    return run(kernel, a, a.partition.blocks, stream);
  });
}

bool has_image() {
  cudaFuncAttributes attributes;
  const auto kernel = latent_forward_kernel<LogVariance, PackedAs<float, float>>;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
  if (status != cudaSuccess) cudaGetLastError();
  return status == cudaSuccess;
}

}  // namespace cuda
}  // namespace pyvae
