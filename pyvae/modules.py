"""The objective as a module, for code that configures its loss once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from . import _checks, _latent_checks, objective
from ._arguments import ELBO, LikelihoodName, Range, Reduction
from ._objects import held
from ._objects import settings as settings_of
from .likelihoods import LikelihoodObject


class ELBOLoss(nn.Module):
    """The negative ELBO of `pyvae.elbo_loss`, with its settings held by a module; `terms` gives that of
    `pyvae.elbo_terms`.

    Of beta, weight, pos_weight and what a likelihood holds, tensors are buffers, which follow the module's device and
    are in its state_dict; an `nn.Parameter` is a parameter, and learned; a number stays one, and may be set anew. What
    a step computes (a log_library of the batch, a decoder's second output) belongs in its call.

    Args:
        likelihood: a name, or an object, as for `pyvae.elbo_loss`. What an object holds the module holds, by the same
            names: `criterion.logvar` of `pyvae.Gaussian(logvar)`. `criterion.likelihood` is the name, or an object of
            what the module has now; it may be set anew.
        beta: factor of the KL. A number may be set anew between steps, `criterion.beta = 0.5`; a 0-d tensor is changed
            in place, `criterion.beta.fill_(0.5)`.
        reduction: "sum", "batchmean" or "none".
        logvar_range: the range that a posterior's logvar is clamped to, as for `pyvae.reparameterize`: the sampler's.
        weight: factor of each element's reconstruction term, a number or a tensor that broadcasts to recon.
        pos_weight: factor of the positive class, number or tensor, for "bernoulli_logits" only.

    Raises:
        TypeError, ValueError: for a setting that `pyvae.elbo_loss` refuses: at once, unless that takes the data to see;
            and for a tensor that was computed with a graph, which belongs in the call.

    Example:
        >>> import torch, pyvae
        >>> criterion = pyvae.ELBOLoss(likelihood="gaussian", beta=0.5, reduction="batchmean")
        >>> x, mu, logvar = torch.ones(4, 3), torch.ones(4, 2), torch.zeros(4, 2)
        >>> criterion(torch.zeros(4, 3), x, mu, logvar)
        tensor(2.)
        >>> criterion.terms(torch.zeros(4, 3), x, mu, logvar)
        ELBO(loss=tensor(2.), recon=tensor(1.5000), kl=tensor(1.))

        A noise that is learned with the rest, one number a feature:

        >>> criterion = pyvae.ELBOLoss(likelihood=pyvae.Gaussian(torch.nn.Parameter(torch.zeros(3))))
        >>> [name for name, _ in criterion.named_parameters()]
        ['logvar']
        >>> criterion.likelihood
        Gaussian(logvar=Parameter(3,))
    """

    reduction: Reduction
    beta: float | Tensor
    weight: Tensor | float | None
    pos_weight: Tensor | float | None

    def __init__(
        self,
        *,
        likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
        beta: float | Tensor = 1.0,
        reduction: Reduction = "sum",
        logvar_range: Range | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
    ) -> None:
        super().__init__()
        _checks.settings("ELBOLoss", likelihood, beta, weight, pos_weight, reduction)
        self.logvar_range = None if logvar_range is None else _latent_checks.bounds("ELBOLoss", logvar_range)
        self.reduction = reduction
        _refuse_computed({"beta": beta}, "pyvae.elbo_loss(..., beta=...)")
        _refuse_computed({"weight": weight}, "criterion(..., weight=...)")
        _refuse_computed({"pos_weight": pos_weight}, "criterion(..., pos_weight=...)")
        self._hold({"beta": beta, "weight": weight, "pos_weight": pos_weight})
        self._held: tuple[str, ...] = ()
        self.likelihood = likelihood

    @property
    def likelihood(self) -> LikelihoodName | LikelihoodObject:
        """The name, or an object of what the module holds. It is made anew, since `.to()` puts other tensors there."""
        if not self._held:
            return self._likelihood
        return self._likelihood(**{name: getattr(self, name) for name in self._held}, **self._own)

    @likelihood.setter
    def likelihood(self, likelihood: LikelihoodName | LikelihoodObject) -> None:
        _checks.settings("ELBOLoss", likelihood, 1.0, None, None, "sum")
        parts = held(likelihood)
        _refuse_computed(parts, "criterion(..., likelihood=...)")
        for name in self._held:
            delattr(self, name)
        self._hold(parts)
        self._held, self._own = tuple(parts), settings_of(likelihood) if parts else {}
        self._likelihood: Any = type(likelihood) if parts else likelihood

    def _hold(self, given: dict[str, Any]) -> None:
        """Registers tensors and keeps numbers, under these names."""
        for name, value in given.items():
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
        rho: Tensor | None = None,
        prior: tuple[Tensor | float, Tensor | float] | None = None,
        kl: Tensor | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
        likelihood: LikelihoodName | LikelihoodObject | None = None,
    ) -> Tensor:
        """The loss in nats of `pyvae.elbo_loss`; `weight`, `pos_weight` and `likelihood` take the place of the module's
        own (a likelihood whose log_library belongs to the batch, say)."""
        settings = self._settings(weight, pos_weight, likelihood)
        posterior = self._posterior(mu=mu, logvar=logvar, std=std, logstd=logstd, rho=rho, prior=prior, kl=kl)
        return objective.elbo_loss(recon, target, **posterior, **settings)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's is typed as Any

    def terms(
        self,
        recon: Tensor,
        target: Tensor,
        mu: Tensor | None = None,
        logvar: Tensor | None = None,
        *,
        std: Tensor | None = None,
        logstd: Tensor | None = None,
        rho: Tensor | None = None,
        prior: tuple[Tensor | float, Tensor | float] | None = None,
        kl: Tensor | None = None,
        weight: Tensor | float | None = None,
        pos_weight: Tensor | float | None = None,
        likelihood: LikelihoodName | LikelihoodObject | None = None,
    ) -> ELBO:
        """The loss and its terms in nats, as by `pyvae.elbo_terms`, of the arguments that a call takes."""
        settings = self._settings(weight, pos_weight, likelihood)
        posterior = self._posterior(mu=mu, logvar=logvar, std=std, logstd=logstd, rho=rho, prior=prior, kl=kl)
        return objective.elbo_terms(recon, target, **posterior, **settings)

    def _posterior(self, **given: Any) -> dict[str, Any]:
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


def _refuse_computed(given: dict[str, Any], instead: str) -> None:
    """Refuse a tensor with a graph, which no second step could go through; `instead` is where it belongs."""
    for name, value in given.items():
        if isinstance(value, Tensor) and value.grad_fn is not None:
            raise ValueError(
                f"ELBOLoss: `{name}` must be an nn.Parameter, a tensor without a graph, or a number, but has the "
                f"grad_fn {value.grad_fn.name()}; what a step computes belongs in its call, `{instead}`"
            )
