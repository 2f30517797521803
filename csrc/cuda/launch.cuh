// Launching: which kernel takes a call, one dimension of blocks, one stream, and what CUDA says of it.
#pragma once

#include "cuda/access.cuh"

namespace pyvae {
namespace cuda {

template <class Call>
const char* run(void (*kernel)(Call), const Call& call, int64_t blocks, void* stream) {
  static_assert(sizeof(Call) <= 4096, "CUDA takes 4 KB of kernel parameters");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(stream);
  // A kernel's first launch loads it, which a capture in its default mode does not allow.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, call);
  cudaThreadExchangeStreamCaptureMode(&mode);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // clears the error, so that the next CUDA call does not report it again
  return cudaGetErrorString(status);
}

// Whether aligned vectors of `type` can follow an operand: it is contiguous, but for rows of a wider tensor that are
// whole vectors long, as `chunk` gives them. An absent operand is. Views at odd offsets take the general kernels.
inline bool is_packed(const Shape& shape, const Operand& operand, int8_t type) {
  if (!operand.data) return true;
  if (operand.type != type || reinterpret_cast<uintptr_t>(operand.data) % 16 != 0) return false;
  return shape.dims == 1 ? operand.contiguous
                         : shape.dims == 2 && operand.strides[1] == 1 && shape.sizes[1] % kVector == 0 &&
                               operand.strides[0] % kVector == 0;
}

// Whether the elements of every vector share their number.
inline bool is_packed(const Shape& shape, const PerRow& values) {
  return !values.data || values.stride == 0 || shape.features % kVector == 0;
}

// A kernel's ways into its tensors, and what it computes in.
template <class Stored_, class T_>
struct PackedAs {
  using Stored = Stored_;
  using Access = Packed<Stored>;
  using T = T_;
  static constexpr int kVector = kPackedVector<T>;
  static constexpr int kBlocks = kPackedBlocks<T>;
  static constexpr int kGradientBlocks = cuda::kGradientBlocks;
};
template <class T_>
struct GeneralAs {
  using Access = AnyOf<FactorTypes>;
  using T = T_;
  static constexpr int kVector = kGeneralVector<T>;
  static constexpr int kBlocks = kGeneralBlocks;
  static constexpr int kGradientBlocks = kGeneralBlocks;
};

// Launches the first of `List` that suits the call, else the general kernel: launch(Tag<way>()).
template <class List, template <class> class General, class Suits, class Launch>
const char* choose(bool in_double, const Suits& suits, const Launch& launch) {
  const char* error = nullptr;
  const bool packed = any_of(List{}, [&](auto way) {
    if (!suits(way)) return false;
    error = launch(way);
    return true;
  });
  if (packed) return error;
  return in_double ? launch(Tag<General<double>>{}) : launch(Tag<General<float>>{});
}

}  // namespace cuda
}  // namespace pyvae
