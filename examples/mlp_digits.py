"""The shortest useful VAE: two small networks, one call of pyvae on each side of the decoder. Handwritten digits.

python examples/mlp_digits.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import pyvae

LATENT, HIDDEN, PIXELS = 8, 256, 64


def main(epochs: int = 20) -> float:
    """Trains, prints a few digits that nobody wrote, and returns the held-out negative ELBO in nats per image."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    images = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16  # (1797, 64), levels of gray in [0, 1]
    images = images[torch.randperm(len(images))]  # the file is ordered by writer
    held_out, train = images[:360], images[360:]

    # The encoder gives mean and log-variance of q(z|x). The decoder ends in logits: no sigmoid, the loss has it inside,
    # where it stays exact however sure the decoder is.
    encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, PIXELS))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)

    def negative_elbo(x: torch.Tensor) -> torch.Tensor:
        mu, logvar = encoder(x).chunk(2, dim=1)  # both (B, LATENT)
        z, kl = pyvae.reparameterize_kl(mu, logvar)  # kl: (B,)
        # "batchmean" sums over pixels and latent dimensions, and averages over the batch: the step size does not depend
        # on the batch's size. A mean over all elements would weigh the KL 64 times as much: see squared_error.py.
        return pyvae.elbo_loss(decoder(z), x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean")

    for epoch in range(epochs):
        for x in train[torch.randperm(len(train))].split(64):
            loss = negative_elbo(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 5 == 0:
            with torch.no_grad():
                print(f"epoch {epoch + 1:3d}: held-out negative ELBO {negative_elbo(held_out):.2f} nats per image")

    with torch.no_grad():
        z = torch.randn(6, LATENT)  # the prior N(0, I)
        grays = (decoder(z).sigmoid() * 9.99).int().view(6, 8, 8)
        for rows in grays.unbind(1):  # the first rows of all six, then the second ones ...
            print("   ".join("".join(2 * " .:-=+*#%@"[gray] for gray in row) for row in rows))
        return negative_elbo(held_out).item()


if __name__ == "__main__":
    main()
