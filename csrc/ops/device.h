// What a device provides: the plain operators, as functions of legal arguments. Checked and registered by implement.h;
// called directly where nothing lies between a call and its device (autograd/function.h).
#pragma once

#include <ATen/core/Generator.h>

#include "ops/gradients.h"

namespace pyvae {

// What an objective returns besides its loss: nothing, its two terms, or its two terms as an operator must return them,
// in memory of their own.
enum class Breakdown { kNone, kWanted, kApart };

using LatentGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct Device {
  // Whether the kernels can run on the device of this index; null: there is nothing to run, only shapes to tell.
  bool (*is_runnable)(int index);
  // Whether eager calls without a seed draw it by latent_draw, rather than in Python.
  bool draws_seeds;

  // (z, kl), each empty where not wanted; kl [B], reduced to a scalar, or of each element, [B, ...].
  std::tuple<Tensor, Tensor> (*latent_forward)(const LatentArguments&, bool with_z, bool with_kl, int64_t reduction);
  // (z, kl, seed): with the seed drawn from the generator (none: the device's own), for the backward pass.
  std::tuple<Tensor, Tensor, Tensor> (*latent_draw)(const LatentArguments&, const std::optional<at::Generator>&,
                                                    bool with_kl);
  // (grad_mu, grad_scale) from grad_z [B, ...] and grad_kl, [B], one for all, or of each element; an absent one counts
  // as 0. And those of the prior's mean and scale, in their own shapes, from grad_kl; undefined without `to_prior`.
  LatentGradients (*latent_backward)(const LatentArguments&, const OptionalTensor& grad_z,
                                     const OptionalTensor& grad_kl, bool to_prior);

  // (loss, reconstruction term, KL term), [B] without reduction, else scalars; and the reconstruction term's gradients
  // that are wanted (bits of GradientOf), made in the same pass. With kNone the second and third may be undefined.
  std::tuple<Tensor, Tensor, Tensor, Gradients> (*elbo_forward)(const ElboArguments&, int64_t wanted, Breakdown terms);
  // upstream[b] * weight * the derivatives of the value, shaped and typed as what they are by; upstream [B].
  Gradients (*elbo_gradient)(const LikelihoodArguments&, const Tensor& upstream, int64_t wanted);
  // The backward pass in place: gradient (if there is one left, as elbo_forward wrote it) times grad_loss + grad_recon;
  // and, if `to_kl`, the KL's gradient mean * (beta grad_loss + grad_kl), [B] without reduction, else a scalar (not
  // wanted: empty).
  Tensor (*elbo_backward_)(const ElboArguments&, const OptionalTensor& gradient, const OptionalTensor& grad_loss,
                           const OptionalTensor& grad_recon, const OptionalTensor& grad_kl, bool to_kl);
};

// The device that registered itself for tensors of this type; null: there is none.
const Device*& device_of(c10::DeviceType type);

}  // namespace pyvae
