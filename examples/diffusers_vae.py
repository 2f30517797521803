"""diffusers' `AutoencoderKL` trained with pyvae: its posterior's sample and KL in one kernel, and the loss in another.

Shown first: `pyvae.reparameterize_kl(mean, logvar, logvar_range=(-30, 20))` gives what `DiagonalGaussianDistribution`
gives, sample and KL, and hands the encoder the same gradients. Then some steps of training, with the loss of latent
diffusion models, but for its perceptual and adversarial terms: an absolute error whose scale is learned, and a small
factor of the KL.

python examples/diffusers_vae.py            # needs diffusers: pip install diffusers
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pyvae

LOGVAR_RANGE = (-30.0, 20.0)  # DiagonalGaussianDistribution's clamp
BETA = 1e-6  # latent diffusion's factor of the KL: the latent space is to be smooth, not small


def autoencoder() -> AutoencoderKL:
    """A tiny one, with random weights: (B, 1, 8, 8) to a latent (B, 4, 4, 4) and back."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=8,
    )


def show_equality(moments: Tensor) -> None:
    """Of moments (B, 8, 4, 4), what `vae.encode` makes its latent_dist of. Raises where the two differ."""
    moments = (moments * (20 / moments.std())).requires_grad_()  # so that some log-variances are beyond the clamp
    posterior = DiagonalGaussianDistribution(moments)
    theirs = posterior.sample(torch.Generator().manual_seed(0)), posterior.kl()

    mean, logvar = moments.chunk(2, dim=1)  # views with gaps between their rows are read as they are
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))  # their noise, to compare
    ours = pyvae.reparameterize_kl(mean, logvar, logvar_range=LOGVAR_RANGE, eps=eps)
    torch.testing.assert_close(ours, theirs)
    upstream = [torch.randn_like(out) for out in ours]
    gradients = [torch.autograd.grad(outs, moments, upstream) for outs in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    clamped = (logvar != posterior.logvar).sum()
    print(f"sample, KL and gradients are diffusers'; of {logvar.numel()} log-variances {clamped} were clamped")


def show_noise(moments: Tensor) -> None:
    """Without eps the noise is drawn within the kernel and never stored: other numbers than diffusers', N(0, 1) too."""
    posterior = DiagonalGaussianDistribution(moments[:1])
    mean, logvar = moments[:1].expand(100_000, -1, -1, -1).chunk(2, dim=1)  # of one image, 100,000 samples
    z = pyvae.reparameterize(mean, logvar, logvar_range=LOGVAR_RANGE)
    noise = (z - posterior.mean) / posterior.std
    print(f"pyvae's own noise: mean {noise.mean():+.4f}, standard deviation {noise.std():.4f}")


def main(steps: int = 60) -> tuple[list[float], float]:
    """The mean absolute error of each step's reconstructions, and the learned scale."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    images = torch.as_tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 8 - 1  # (1797, 1, 8, 8), -1 to 1
    vae = autoencoder()
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(images[:64]))
    show_equality(moments)
    show_noise(moments)

    logscale = nn.Parameter(torch.zeros(()))  # `logvar` in latent diffusion's code, which divides the error by its exp
    criterion = pyvae.ELBOLoss(likelihood=pyvae.Laplace(logscale), beta=BETA, reduction="batchmean")
    groups = [{"params": [*vae.parameters()]}, {"params": [*criterion.parameters()], "lr": 0.05}]
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    errors = []
    for step in range(steps):
        x = images[torch.randint(len(images), (64,))]
        mean, logvar = vae.quant_conv(vae.encoder(x)).chunk(2, dim=1)
        z, kl = pyvae.reparameterize_kl(mean, logvar, logvar_range=LOGVAR_RANGE)
        recon = vae.decode(z).sample
        # sum(|recon - x| / exp(logscale) + logscale) / B + BETA * kl.sum() / B
        loss = criterion(recon, x, kl=kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append((recon.detach() - x).abs().mean().item())
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}: mean absolute error {errors[-1]:.3f}, learned scale {logscale.exp():.3f}")
    return errors, logscale.exp().item()


if __name__ == "__main__":
    main()
