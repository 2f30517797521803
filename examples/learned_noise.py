"""A Gaussian decoder that learns how noisy its data are, one number or one for each feature, with the networks.

The data have a noise that is known here, and is found again. `pyvae.Gaussian(logvar)` takes any shape that broadcasts
to the decoder's means: () is one number, (D,) one for each feature, and a second output of the decoder, (B, D), would
be one for each element. With the noise fixed at 1, as in "gaussian", data of a smaller scale are all noise to the
model: it leaves its latent space unused, and the KL is 0.

python examples/learned_noise.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pyvae

N, D, LATENT, HIDDEN = 4000, 30, 2, 64


def draw(std: Tensor) -> Tensor:
    """(N, D): points of a bent surface of two dimensions, plus noise of the standard deviation `std`, () or (D,)."""
    surface = torch.tanh(torch.randn(N, 2) @ torch.randn(2, D) + torch.randn(D)) / 4
    return surface + std * torch.randn(N, D)


def train(x: Tensor, likelihood: pyvae.Gaussian, epochs: int) -> float:
    """Trains a VAE, and the noise's log-variance with it if it is a parameter; the KL in nats per sample at the end."""
    encoder = nn.Sequential(nn.Linear(D, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, D))
    # The loss is a module, whose parameter the noise's log-variance is: it is moved and saved with the networks.
    criterion = pyvae.ELBOLoss(likelihood=likelihood, reduction="batchmean")
    groups = [
        {"params": [*encoder.parameters(), *decoder.parameters()]},
        {"params": [*criterion.parameters()], "lr": 0.02},  # it has further to go than a weight, from 0 to -5, say
    ]
    optimizer = torch.optim.Adam(groups, lr=0.005)
    for _ in range(epochs):
        kls = []
        for batch in x[torch.randperm(N)].split(200):
            z, kl = pyvae.reparameterize_kl(*encoder(batch).chunk(2, dim=1))
            loss = criterion(decoder(z), batch, kl=kl)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kls.append(kl.detach())
    return torch.cat(kls).mean().item()


def main(epochs: int = 30) -> dict[str, tuple[Tensor, Tensor, float]]:
    """True and learned standard deviations, and the KL, of each model. What a decoder of this size cannot follow of the
    surface counts as noise as well, so that they are rather above than below."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    one, each = torch.tensor(0.1), torch.logspace(-1, -0.3, D)  # 0.1 to 0.5
    found = {}
    for name, std, logvar in (
        ("fixed at 1", one, None),
        ("one number", one, nn.Parameter(torch.zeros(()))),
        ("one for each feature", each, nn.Parameter(torch.zeros(D))),
    ):
        kl = train(draw(std), pyvae.Gaussian(logvar), epochs)  # of None: the unit variance of "gaussian"
        learned = torch.ones(()) if logvar is None else (logvar.detach() / 2).exp()
        found[name] = (std, learned, kl)
        print(f"noise {name}: KL {kl:.2f} nats per sample, its std / the true one: {describe(learned / std)}")
    return found


def describe(ratio: Tensor) -> str:
    return f"{ratio:.3f}" if ratio.ndim == 0 else f"{ratio.min():.3f} to {ratio.max():.3f}"


if __name__ == "__main__":
    main()
