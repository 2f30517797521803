// The kernel parameters that both devices share: raw memory, types, and strides over a common index space. Each device
// adds its own parameters (cpu/kernels.h, cuda/kernels.h).
#pragma once

#include "math/terms.h"

namespace pyvae {

constexpr int kMaxDims = 8;

// The index space of one call: `rows` samples of `features` elements each. Dimensions that are contiguous in every
// operand are merged; sizes[0] x ... x sizes[dims - 1] is the shape after that. Elements are numbered row by row.
struct Shape {
  int64_t rows, features;
  int dims;
  int64_t sizes[kMaxDims];
};

// A tensor over a Shape. Strides are counted in elements (0 where the tensor is broadcast).
struct Operand {
  void* data = nullptr;     // [sizes...]; null: absent
  int8_t type = 0;          // StoredTypes (math/stored.h)
  bool contiguous = false;  // in the Shape's own order
  int64_t strides[kMaxDims] = {};
};

// Encoder side. Forward: z = mu + sigma eps and KL(q || prior); either output is optional.
// Backward: grad_mu = g_z + g_kl dKL/dmu; grad_scale = g_z eps dsigma/ds + g_kl dKL/ds; and g_kl times the derivatives
// of the KL by the prior's mean and scale.
struct LatentOperands {
  Shape shape;
  bool in_double;                                     // computed in double, else in float
  Operand mu, scale;                                  // [rows, features]
  Operand eps;                                        // [rows, features] of sample 0, like z and grad_z; absent: drawn
  Operand z;                                          // [rows, features], written by forward; absent: no sample
  Operand grad_z;                                     // [rows, features], read by backward; absent: 0
  Operand grad_mu;                                    // [rows, features], written by backward
  Operand grad_scale;                                 // [rows, features], written by backward
  uint64_t first_index = 0;                           // global index of element 0: row_offset * features
  int scale_kind = 0;                                 // Scales (math/gaussian.h)
  int64_t samples = 1;                                // samples per element
  int64_t eps_step = 0, z_step = 0, grad_z_step = 0;  // bytes from one sample to the next

  Operand prior_mean, prior_scale;            // [rows, features]; absent: N(0, 1)
  Operand elements;                           // [rows, features], KL per element, written by forward; absent: skipped
  Operand grad_elements;                      // [rows, features], read by backward; absent: g_kl is one number per row
  Operand grad_prior_mean, grad_prior_scale;  // [rows, features], written by backward; absent: skipped
  double low = -__builtin_inf(), high = __builtin_inf();  // the scale is clamped to them
  PYVAE_HD bool is_clamped() const { return low > -__builtin_inf() || high < __builtin_inf(); }
};

// Decoder side: the negative log-likelihood, and its gradient by recon.
struct ObjectiveOperands {
  Shape shape;
  bool in_double;
  Operand recon, target;       // [rows, features]
  Operand weight, pos_weight;  // [rows, features]; absent: the numbers below
  double weight_number = 1, pos_weight_number = 1;
  bool is_weighted = false, is_pos_weighted = false;  // the weight is not the number 1
  bool is_masked = false;                             // weight is a bool mask: it selects elements, it is not a factor
  Operand elements;                                   // [rows, features], value per element, written; absent: skipped
  Operand gradient;                                   // [rows, features], written; absent: skipped
  double factor = 1;                                  // multiplies the gradient
  int likelihood = 0;                                 // Likelihoods (math/likelihood.h)

  Operand parameters[kMaxParameters];           // [rows, features], broadcast; absent beyond the likelihood's own
  Operand parameter_gradients[kMaxParameters];  // [rows, features], written; absent: skipped, or summed
  bool softmax = false;                         // recon holds scores: the mean is library * softmax(recon) over the row
};

// Log densities under a mixture of diagonal Gaussians. All memory is contiguous and has one dtype.
struct MixtureOperands {
  int64_t groups;                // groups of components: 1 that all rows share, or one per sample of the batch
  int64_t rows;                  // row r uses the components of group r % groups
  int64_t components, features;  // per group, per row
  bool in_double;
  bool elements = false;                                  // one density per feature, else one per row
  int scale_kind = 0;                                     // Scales (math/gaussian.h)
  double low = -__builtin_inf(), high = __builtin_inf();  // the scale is clamped to them

  const void* z = nullptr;             // [rows, features]
  const void* mean = nullptr;          // [groups, components, features]
  const void* scale = nullptr;         // [groups, components, features]
  const double* log_weight = nullptr;  // [groups, components], log pi; null: equal
  void* values = nullptr;              // [rows], or [rows, features] if `elements`; written by forward
  // Shaped like `values`: the largest term, and the sum of all terms relative to it. Written by forward, read by
  // backward; null: skipped.
  void* top = nullptr;
  void* sum = nullptr;

  const void* upstream = nullptr;  // shaped like `values`, read by backward
  void* grad_z = nullptr;          // [rows, features], written by backward
  void* grad_mean = nullptr;       // [groups, components, features], written by backward; null: skipped
  void* grad_scale = nullptr;      // like grad_mean; both or neither
  double* grad_weight = nullptr;   // [groups, components], likewise: the sum of r over each component's rows
};

}  // namespace pyvae
