"""beta-TCVAE (Chen et al. 2018): the KL taken apart, and only its total correlation weighted.

    E KL(q(z|x) || p(z)) = I(x; z) + TC + sum_l KL(q(z_l) || p(z_l)),   TC = KL(q(z) || prod_l q(z_l))

q(z) is the aggregate posterior, of which a minibatch gives an estimate: a mixture whose components are the batch's own
posteriors. `pyvae.mixture_log_prob` computes its log density at z, and with `reduction="elements"` those of its
marginals, without a tensor of B x B x L numbers. With beta above 1 the dimensions of z become independent: here of
images of a bright spot, whose place has two coordinates.

python examples/beta_tcvae.py
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

import pyvae

SIDE, LATENT, HIDDEN, IMAGES = 12, 4, 128, 2000


class Terms(NamedTuple):
    """In nats per image."""

    reconstruction: Tensor
    mutual_information: Tensor
    total_correlation: Tensor
    of_dimensions: Tensor


def spots(count: int) -> Tensor:
    """(count, SIDE^2): a bright spot at a uniform place, whose two coordinates are independent."""
    place = 2 + (SIDE - 5) * torch.rand(count, 2, 1)
    line = torch.arange(SIDE)
    vertical, horizontal = torch.exp(-((line - place) ** 2) / 3).unbind(1)  # both (count, SIDE)
    return (vertical[:, :, None] * horizontal[:, None, :]).flatten(1)


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pixels = SIDE * SIDE
        self.encoder = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, pixels))

    def terms(self, x: Tensor) -> Terms:
        mu, logvar = self.encoder(x).chunk(2, dim=1)  # both (B, LATENT)
        z = pyvae.reparameterize(mu, logvar)
        recon = pyvae.reconstruction_loss(self.decoder(z), x, likelihood="bernoulli_logits")
        aggregate = pyvae.Mixture(mu, logvar)
        given = pyvae.gaussian_log_prob(z, mu, logvar)  # log q(z|x), (B,)
        whole = pyvae.mixture_log_prob(z, aggregate)  # log q(z), (B,)
        marginals = pyvae.mixture_log_prob(z, aggregate, reduction="elements").sum(1)  # sum_l log q(z_l), (B,)
        prior = pyvae.gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
        return Terms(*(term.mean() for term in (recon, given - whole, whole - marginals, marginals - prior)))


def train(beta: float, images: Tensor, epochs: int) -> Terms:
    """The terms of all images, after training with this weight of the total correlation."""
    torch.manual_seed(0)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x in images[torch.randperm(len(images))].split(200):
            terms = model.terms(x)
            loss = (
                terms.reconstruction + terms.mutual_information + beta * terms.total_correlation + terms.of_dimensions
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return model.terms(images)


def main(epochs: int = 60) -> dict[float, Terms]:
    """The terms for beta 1, a VAE, and 6; with the names of the KL's parts."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    images = spots(IMAGES)
    found = {}
    print(f"{'beta':>4}  {'reconstruction':>14}  {'information':>11}  {'correlation':>11}  {'dimensions':>10}")
    for beta in (1.0, 6.0):
        found[beta] = train(beta, images, epochs)
        recon, information, correlation, dimensions = (term.item() for term in found[beta])
        print(f"{beta:4.0f}  {recon:14.2f}  {information:11.2f}  {correlation:11.3f}  {dimensions:10.3f}")
    return found


if __name__ == "__main__":
    main()
