"""What `mse_loss` plus a KL term means: a Gaussian decoder's objective, whose beta is often an accident.

A decoder that gives means, with a noise of variance s2 around them, has the negative ELBO

    1/(2 s2) sum (recon - x)^2 + KL + a constant   =   1/s2 (1/2 sum (recon - x)^2 + s2 KL) + a constant.

pyvae's "gaussian" is half the summed squared error, and so its beta is that variance. The usual forms differ from it by
a factor of the whole, which is a step size, and by beta, which is another model. The table shows both:

    usual form   =   factor * pyvae.elbo_loss(recon, x, kl=kl, likelihood="gaussian", beta=beta, reduction=reduction)

python examples/squared_error.py
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

B, D, L = 32, 192, 16  # images, their pixels, latent dimensions
WEIGHT = 0.01  # of the KL, as somebody has tuned it
STD = 0.1  # of the noise, where somebody knows it

Row = tuple[str, Tensor, float, float, str]  # the usual form and its value; factor, beta and reduction of pyvae's


def usual_forms(recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> list[Row]:
    """recon and x are (B, D), mu and logvar (B, L)."""
    sse, mse = F.mse_loss(recon, x, reduction="sum"), F.mse_loss(recon, x)  # mse is sse / (B D)
    elements = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())  # (B, L)
    kl = elements.sum(dim=1)  # (B,)
    return [
        # The formula itself, for a noise of variance 1. With pixels in [0, 1] that is much: for scikit-learn's digits a
        # linear decoder would use no latent dimension, since their first principal component has the variance 0.70.
        ("sse / 2 + kl.sum()", sse / 2 + kl.sum(), 1, 1, "sum"),
        # Without the half it is twice the objective for variance 1/2.
        ("sse + kl.sum()", sse + kl.sum(), 2, 0.5, "sum"),
        # Divided by the batch's size, the same: another step size, not another model.
        ("sse / B + kl.mean()", sse / B + kl.mean(), 2, 0.5, "batchmean"),
        # The mean over all elements divides the error by D as well, but not the KL: beta is D/2. The KL goes to 0,
        # images are blurred, and people mend it with a small weight, to be tuned again for images of another size.
        ("mse + kl.mean()", mse + kl.mean(), 2 / D, D / 2, "batchmean"),
        ("mse + weight * kl.mean()", mse + WEIGHT * kl.mean(), 2 / D, WEIGHT * D / 2, "batchmean"),
        # Means on both sides: now beta changes with the number of latent dimensions, too.
        ("mse + elements.mean()", mse + elements.mean(), 2 / D, D / (2 * L), "batchmean"),
        # And with a noise that is known.
        ("sse / (2 std^2) + kl.sum()", sse / (2 * STD**2) + kl.sum(), 1 / STD**2, STD**2, "sum"),
    ]


def main() -> None:
    torch.manual_seed(0)
    x = torch.rand(B, D)
    drawn = [x + STD * torch.randn(B, D), torch.randn(B, L), torch.randn(B, L)]
    inputs = [tensor.requires_grad_() for tensor in drawn]
    recon, mu, logvar = inputs
    kl = pyvae.kl_divergence(mu, logvar)  # (B,); in a training step reparameterize_kl gives it with the sample

    print(f"{'usual form':<28}{'its value':>11}   {'pyvae':>11} = factor * elbo_loss(beta, reduction)")
    for form, usual, factor, beta, reduction in usual_forms(recon, x, mu, logvar):
        ours = factor * pyvae.elbo_loss(recon, x, kl=kl, likelihood="gaussian", beta=beta, reduction=reduction)
        print(f"{form:<28}{usual:11.4f}   {ours:11.4f} = {factor:.4g} * elbo_loss({beta:.4g}, {reduction!r})")
        torch.testing.assert_close(ours, usual)
        gradients = [torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (ours, usual)]
        torch.testing.assert_close(*gradients)  # by recon, mu and logvar: the same training, up to rounding

    # The last form once more, as the likelihood that it is: beta stays 1, the KL in nats beside an error in nats, and
    # log std counts, once for each element. That makes losses of several noises comparable, and the noise learnable:
    # see learned_noise.py.
    noise = pyvae.Gaussian(logvar=torch.tensor(2 * math.log(STD)))
    ours = pyvae.elbo_loss(recon, x, kl=kl, likelihood=noise)
    torch.testing.assert_close(ours, usual + B * D * math.log(STD))
    print(f"With its constant: {ours:.4f}, from likelihood=pyvae.Gaussian(logvar)")


if __name__ == "__main__":
    main()
