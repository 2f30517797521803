"""A VAE as a LightningModule: bfloat16 mixed precision, accumulated gradients, and a KL that is warmed up.

python examples/lightning_vae.py            # needs lightning: pip install lightning
"""

from __future__ import annotations

import logging

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader

import pyvae

LATENT, HIDDEN, PIXELS = 8, 256, 64
BATCH, ACCUMULATED = 32, 2  # a step of the optimizer sees 64 images
WARM_UP = 200  # steps


class LitVAE(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, PIXELS))
        # A module, so that beta is a buffer: it is moved with the model, and setting it costs no synchronization on a
        # GPU and no recompilation. Each micro-batch's mean is what Lightning averages when it accumulates: "batchmean",
        # since a sum would give larger gradients for larger micro-batches.
        self.criterion = pyvae.ELBOLoss(likelihood="bernoulli_logits", beta=torch.zeros(()), reduction="batchmean")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of p(x|z), (B, PIXELS), and KL(q(z|x) || N(0, I)) of each image, (B,)."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return self.decoder(z), kl

    def training_step(self, x: Tensor) -> Tensor:
        # Under "bf16-mixed" the networks' outputs are bfloat16, z too, while x, the KL and the loss stay float32: pyvae
        # reads both types as they are, and sums in float32. Nothing needs a cast or an autocast(enabled=False).
        logits, kl = self(x)
        return self.criterion(logits, x, kl=kl)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        # Not in on_before_zero_grad, which Lightning calls between forward and backward: there torch refuses a change.
        self.criterion.beta.fill_(min(1.0, self.global_step / WARM_UP))  # global_step counts the optimizer's steps

    def validation_step(self, x: Tensor) -> None:
        logits, kl = self(x)
        terms = pyvae.elbo_terms(logits, x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean")  # beta is 1
        self.log_dict({"negative ELBO": terms.loss, "reconstruction": terms.recon, "KL": terms.kl})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(epochs: int = 20) -> dict[str, float]:
    """Trains; the held-out terms in nats per image."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)  # of pyvae's noise, too
    images = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16  # (1797, 64), levels of gray in [0, 1]
    images = images[torch.randperm(len(images))]  # the file is ordered by writer
    held_out, train = images[:360], images[360:]
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="bf16-mixed",
        accumulate_grad_batches=ACCUMULATED,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = LitVAE()
    trainer.fit(model, DataLoader(train, BATCH, shuffle=True), DataLoader(held_out, len(held_out)))
    terms = {name: value.item() for name, value in trainer.callback_metrics.items()}
    print(", ".join(f"{name} {value:.2f}" for name, value in terms.items()), "nats per held-out image")
    return terms


if __name__ == "__main__":
    main()
