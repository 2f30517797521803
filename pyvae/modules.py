"""The objective as a module, for code that configures its loss once."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import _checks, _latent_checks, objective
from ._arguments import ELBO, Range
from .likelihoods import LikelihoodObject


class ELBOLoss(nn.Module):
    """The negative ELBO of `pyvae.elbo_loss`, with its settings held by a module; `terms` gives that of
    `pyvae.elbo_terms`.

    Args:
        likelihood: a name, or an object, as for `pyvae.elbo_loss`. An object's tensors stay the caller's: the module
            neither registers nor moves them.
        beta: factor of the KL. A number may be set anew between steps, `criterion.beta = 0.5`; a 0-d tensor is changed
            in place, `criterion.beta.fill_(0.5)`.
        reduction: "sum", "batchmean" or "none".
        logvar_range: the range that a posterior's logvar is clamped to, as for `pyvae.reparameterize`: the sampler's.
        weight: factor of each element's reconstruction term, a number or a tensor that broadcasts to recon.
        pos_weight: factor of the positive class, number or tensor, for "bernoulli_logits" only.

        Of these three, tensors are buffers, which follow the module's device and are in its state_dict; an
        `nn.Parameter` is a parameter, and learned.

    Raises:
        TypeError, ValueError: for a setting that `pyvae.elbo_loss` refuses: at once, unless that takes the data to see.

    Example:
        >>> import torch, pyvae
        >>> criterion = pyvae.ELBOLoss(likelihood="gaussian", beta=0.5, reduction="batchmean")
        >>> x, mu, logvar = torch.ones(4, 3), torch.ones(4, 2), torch.zeros(4, 2)
        >>> criterion(torch.zeros(4, 3), x, mu, logvar)
        tensor(2.)
        >>> criterion.terms(torch.zeros(4, 3), x, mu, logvar)
        ELBO(loss=tensor(2.), recon=tensor(1.5000), kl=tensor(1.))
    """

    beta: float | Tensor
    weight: Tensor | float | None
    pos_weight: Tensor | float | None

    def __init__(
        self,
        *,
        likelihood: str | LikelihoodObject = "bernoulli",
        beta: float | Tensor = 1.0,
        reduction: str = "sum",
        logvar_range: Range | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
    ) -> None:
        super().__init__()
        _checks.settings("ELBOLoss", likelihood, beta, weight, pos_weight, reduction)
        self.logvar_range = None if logvar_range is None else _latent_checks.bounds("ELBOLoss", logvar_range)
        self.likelihood = likelihood
        self.reduction = reduction
        for name, value in (("beta", beta), ("weight", weight), ("pos_weight", pos_weight)):
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(
        self,
        recon: Tensor,
        target: Tensor,
        mu: Tensor | None = None,
        logvar: Tensor | None = None,
        *,
        std: Tensor | None = None,
        logstd: Tensor | None = None,
        prior: tuple[Tensor | float, Tensor | float] | None = None,
        kl: Tensor | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
        likelihood: str | LikelihoodObject | None = None,
    ) -> Tensor:
        """The loss in nats of `pyvae.elbo_loss`; `weight`, `pos_weight` and `likelihood` take the place of the module's
        own (a likelihood whose log_library belongs to the batch, say)."""
        settings = self._settings(weight, pos_weight, likelihood)
        posterior = self._posterior(mu, logvar, std, logstd, prior, kl)
        return objective.elbo_loss(recon, target, **posterior, **settings)

    def terms(
        self,
        recon: Tensor,
        target: Tensor,
        mu: Tensor | None = None,
        logvar: Tensor | None = None,
        *,
        std: Tensor | None = None,
        logstd: Tensor | None = None,
        prior: tuple[Tensor | float, Tensor | float] | None = None,
        kl: Tensor | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
        likelihood: str | LikelihoodObject | None = None,
    ) -> ELBO:
        """The loss and its terms in nats, as by `pyvae.elbo_terms`, of the arguments that a call takes."""
        settings = self._settings(weight, pos_weight, likelihood)
        posterior = self._posterior(mu, logvar, std, logstd, prior, kl)
        return objective.elbo_terms(recon, target, **posterior, **settings)

    def _posterior(self, mu: Any, logvar: Any, std: Any, logstd: Any, prior: Any, kl: Any) -> dict[str, Any]:
        given = {"mu": mu, "logvar": logvar, "std": std, "logstd": logstd, "prior": prior, "kl": kl}
        if all(value is None for value in given.values()):  # the reconstruction alone: there is nothing to clamp
            return {}
        return given | {"logvar_range": self.logvar_range}

    def _settings(self, weight: Any, pos_weight: Any, likelihood: Any) -> dict[str, Any]:
        return {
            "likelihood": self.likelihood if likelihood is None else likelihood,
            "beta": self.beta,
            "weight": self.weight if weight is None else weight,
            "pos_weight": self.pos_weight if pos_weight is None else pos_weight,
            "reduction": self.reduction,
        }

    def extra_repr(self) -> str:
        shown = f"likelihood={self.likelihood!r}, beta={self.beta}, reduction={self.reduction!r}"
        return shown if self.logvar_range is None else f"{shown}, logvar_range={self.logvar_range}"
