// What the kernels of the decoder side write in the end: the loss and its terms.
#pragma once

#include "cuda/access.cuh"
#include "math/elbo.h"

namespace pyvae {
namespace cuda {

// loss = likelihood + beta KL of one row, from the sums of both.
__device__ __forceinline__ void write_terms(const LossTerms& a, int64_t row, double recon_term, double kl_term) {
  recon_term *= a.mean;
  kl_term *= a.mean;
  const double beta = a.beta_tensor.data ? a.beta * read(a.beta_tensor, 0) : a.beta;
  write(a.loss, row, negative_elbo(recon_term, kl_term, beta));
  write(a.recon_term, row, recon_term);
  write(a.kl_term, row, kl_term);
}

}  // namespace cuda
}  // namespace pyvae
