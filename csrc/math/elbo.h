// The objective of one row, or of all rows, from the sums of its two terms.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

PYVAE_HD double negative_elbo(double recon, double kl, double beta) { return recon + beta * kl; }

// d loss / d KL = beta, and the KL is also an output of its own.
PYVAE_HD double kl_upstream(double grad_loss, double grad_kl, double beta) { return beta * grad_loss + grad_kl; }

}  // namespace PYVAE_ISA
}  // namespace pyvae
