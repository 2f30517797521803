"""DTensors: every process calls the function with its own part, and says of which whole the result is a part.

What is split by rows stays so, since rows are independent of each other, and so do features of a likelihood that goes
element by element: the sums over them are then partial ones (`Partial("sum")`). All other placements are redistributed
to replicated ones. Rows are numbered over the whole batch, so that one seed is one noise, however it is split. Data
that is refused (a probability outside [0, 1]) is so by the processes that have it. Nothing here imports
torch.distributed.tensor before there is a DTensor. torch.compile follows all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._arguments import ELBO, SCALES, LatentArguments, ObjectiveArguments, Posterior
from ._noise import seed_tensor
from ._objects import held
from .likelihoods import LIKELIHOODS, resolve


def among(*tensors: Tensor | None) -> bool:
    """Whether one of them is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(tensor, module.DTensor) for tensor in tensors)


class _Defined(torch.autograd.Function):
    """The identity, behind which a gradient that nobody has is 0: what redistributes it back cannot do without."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Split:
    """How a call is split over a device mesh, by the placements of its first tensor, the leader: along each dimension
    of the mesh by one of the leader's dimensions, or (None) not at all."""

    def __init__(self, function: str, name: str, leader: Tensor, with_features: bool) -> None:
        from torch.distributed.tensor import DTensor, Shard

        self.function, self.name, self.shape = function, name, leader.shape
        if not isinstance(leader, DTensor):
            raise TypeError(f"{function}: `{name}` must be a DTensor, as other arguments are, but is a Tensor")
        self.mesh = leader.device_mesh
        self.dims = [p.dim if type(p) is Shard and (p.dim == 0 or with_features) else None for p in leader.placements]

    @property
    def has_features(self) -> bool:
        return any(self.dims)

    def part(self, name: str, tensor: Any, per_row: bool = False) -> Any:
        """This process's part of a tensor that broadcasts to the leader or has its rows alone (`per_row`).

        Where the call is split and the tensor is not, each process has a part of its gradient.
        """
        from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

        if not isinstance(tensor, DTensor):
            if isinstance(tensor, Tensor) and (tensor.ndim or tensor.requires_grad):
                raise TypeError(
                    f"{self.function}: `{name}` must be a DTensor, as `{self.name}` is, but is a Tensor; "
                    "torch.distributed.tensor.distribute_tensor makes one"
                )
            return tensor
        if tensor.device_mesh != self.mesh:
            raise ValueError(
                f"{self.function}: `{name}` must be on {self.name}'s mesh {self.mesh}, but is on {tensor.device_mesh}"
            )
        placements: list[Placement] = []
        gradients: list[Placement] = []
        for dim in self.dims:
            at = self._place(tensor, dim, per_row)
            placements.append(Replicate() if at is None else Shard(at))
            gradients.append(Partial() if at is None and dim is not None else placements[-1])
        if tensor.placements == tuple(placements):
            return tensor.to_local(grad_placements=gradients)
        return _Defined.apply(tensor.redistribute(self.mesh, placements).to_local(grad_placements=gradients))

    def _place(self, tensor: Tensor, dim: int | None, per_row: bool) -> int | None:
        """Which of the tensor's dimensions is the leader's `dim`; None: none, it is the same for all of it."""
        if dim is None or per_row:
            return 0 if dim == 0 else None
        at = dim - (len(self.shape) - tensor.ndim)
        return at if at >= 0 and tensor.shape[at] == self.shape[dim] else None

    def whole(self, part: Tensor, shape: Sequence[int], rows: int | None = 0) -> Tensor:
        """The DTensor of this shape whose part is given: rows, dimension `rows`, or (None) sums over everything."""
        from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

        def of(dim: int | None) -> Placement:
            if dim is None:
                return Replicate()
            return Shard(rows) if dim == 0 and rows is not None else Partial()

        size = torch.Size(shape)
        stride = torch.empty(size, device="meta").stride()
        placements = [of(dim) for dim in self.dims]
        return DTensor.from_local(part.contiguous(), self.mesh, placements, shape=size, stride=stride)

    def whole_elements(self, part: Tensor) -> Tensor:
        """The DTensor in the leader's shape and split, whose part is given."""
        from torch.distributed.tensor import DTensor, Replicate, Shard

        stride = torch.empty(self.shape, device="meta").stride()
        placements = [Replicate() if dim is None else Shard(dim) for dim in self.dims]
        return DTensor.from_local(part.contiguous(), self.mesh, placements, shape=self.shape, stride=stride)

    def first_row(self) -> int:
        """The place of this process's first row in the whole batch, which Shard splits as torch.chunk does."""
        first, rows = 0, self.shape[0]
        for index, dim in enumerate(self.dims):
            if dim == 0:
                each = -(-rows // self.mesh.size(index))
                before = min(rows, each * self.mesh.get_local_rank(index))
                first, rows = first + before, min(each, rows - before)
        return first

    def seed(self, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Drawn by each process for its own rows; those that have the same rows take one seed."""
        seed = seed_tensor(None, generator, device)
        for index, dim in enumerate(self.dims):
            if dim is None and self.mesh.size(index) > 1:
                torch.distributed.broadcast(seed, group=self.mesh.get_group(index), group_src=0)
        return seed


def sample(
    compute: Callable[..., Any], function: str, with_kl: bool, call: LatentArguments, posterior: Posterior
) -> Any:
    """z, or with its KL (z, kl), of a checked call; `compute` is the function for tensors of one process."""
    split = Split(function, "mu", posterior.mu, with_features=False)
    own = call._replace(**_distributions(split, posterior), eps=split.part("eps", call.eps))
    if call.eps is None:
        given = call.seed.full_tensor() if among(call.seed) else call.seed  # type: ignore[arg-type, union-attr]
        seed = split.seed(call.generator, posterior.mu.device) if given is None else given
        own = own._replace(seed=seed, generator=None, row_offset=call.row_offset + split.first_row())
    out = compute(with_kl, *own)
    z, *kl = out if with_kl else (out,)
    at, shape = (0, posterior.mu.shape) if call.samples is None else (1, (call.samples, *posterior.mu.shape))
    whole = split.whole(z, shape, at)
    return (whole, split.whole(kl[0], posterior.mu.shape[:1])) if with_kl else whole


def divergence(compute: Callable[..., Tensor], function: str, posterior: Posterior, reduction: str) -> Tensor:
    """The KL of a checked posterior; `compute` is `kl_divergence`."""
    split = Split(function, "mu", posterior.mu, with_features=False)
    batch = posterior.mu.shape[0]
    scattered = "sum" if reduction == "batchmean" else reduction
    kl = compute(**_distributions(split, posterior), logvar_range=posterior.range, reduction=scattered)
    if reduction in ("none", "elements"):
        return split.whole(kl, posterior.mu.shape if reduction == "elements" else (batch,))
    # A mean of means would be wrong where the parts have not the same size.
    return split.whole(kl / batch if reduction == "batchmean" else kl, (), rows=None)


def _distributions(split: Split, posterior: Posterior) -> dict[str, Any]:
    """This process's part of the posterior and its prior, as keywords."""
    mu, scale, kind, _, prior = posterior
    return {
        "mu": split.part("mu", mu),
        kind: split.part(kind, scale),
        "prior": None if prior is None else tuple(split.part(f"prior[{i}]", part) for i, part in enumerate(prior)),
    }


def objective(
    compute: Callable[..., Any], function: str, call: ObjectiveArguments, posterior: Posterior | None
) -> ELBO:
    """The objective of a checked call; `compute` is the function for tensors of one process."""
    batch = call.recon.shape[0]
    split, per_row = _of_objective(function, call)
    if split.has_features and (posterior is not None or call.kl is not None):
        return _apart(compute, function, call, posterior)
    own = call._replace(
        recon=split.part("recon", call.recon),
        target=split.part("target", call.target, per_row=per_row),
        kl=split.part("kl", call.kl, per_row=True),
        likelihood=_parts_of(split, call.likelihood),
        beta=split.part("beta", call.beta),
        weight=split.part("weight", call.weight),
        pos_weight=split.part("pos_weight", call.pos_weight),
        reduction="none" if call.reduction == "none" else "sum",
    )
    if posterior is not None:
        named = {"mu": posterior.mu, posterior.kind: posterior.scale}
        own = own._replace(**{name: split.part(name, part, per_row=True) for name, part in named.items()})
    terms = compute(True, *own)
    if call.reduction == "none":
        return ELBO(*(split.whole(term, (batch,)) for term in terms))
    scale = batch if call.reduction == "batchmean" else 1  # of the whole batch, as in `divergence`
    return ELBO(*(split.whole(term / scale, (), rows=None) for term in terms))


def elements(compute: Callable[..., Tensor], function: str, call: ObjectiveArguments) -> Tensor:
    """Each element's own, of a checked call: split as recon is."""
    split, per_row = _of_objective(function, call)
    factors = [split.part(name, getattr(call, name)) for name in ("weight", "pos_weight")]
    target = split.part("target", call.target, per_row=per_row)
    part = compute(split.part("recon", call.recon), target, _parts_of(split, call.likelihood), *factors)
    return split.whole_elements(part)


def samples(compute: Callable[..., Tensor], call: ObjectiveArguments) -> Tensor:
    """Of recon (S, B, ...), whose samples are computed one by one; `compute` is `reconstruction_loss`."""
    shape, like = call.recon.shape, call.likelihood
    mean = call.reduction == "batchmean"

    def of(x: Any, sample: int) -> Any:
        """A sample's own, of what has a dimension for them."""
        if not isinstance(x, Tensor) or x.ndim < len(shape):
            return x
        return x.select(0, sample if x.shape[0] == shape[0] else 0)

    def library(x: Any, sample: int) -> Any:
        whole = isinstance(x, Tensor) and tuple(x.shape) in (tuple(shape[:2]), (*shape[:2], 1))
        return x.select(0, sample) if whole and tuple(x.shape) != (shape[1], 1) else x

    losses = []
    for sample in range(shape[0]):
        own = {n: (library if n == "log_library" else of)(value, sample) for n, value in held(like).items()}
        losses.append(
            compute(
                call.recon.select(0, sample),
                call.target,
                likelihood=replace(like, **own) if own else like,
                weight=of(call.weight, sample),
                pos_weight=of(call.pos_weight, sample),
                reduction="sum" if mean else call.reduction,
            )
        )
    stacked = torch.stack(losses)
    if call.reduction in ("none", "elements"):
        return stacked
    return stacked.sum() / (shape[0] * shape[1]) if mean else stacked.sum()


def _of_objective(function: str, call: ObjectiveArguments) -> tuple[Split, bool]:
    """How a call is split, and whether by rows alone."""
    like = resolve(call.likelihood)
    goes_over_rows = LIKELIHOODS[like.name].softmax == "always" or like.log_library is not None
    with_features = not goes_over_rows and call.target.shape == call.recon.shape
    return Split(function, "recon", call.recon, with_features), not with_features


def _parts_of(split: Split, likelihood: Any) -> Any:
    """The name, or the object with this process's parts of what it holds."""
    parts = {name: split.part(name, value, per_row=name == "log_library") for name, value in held(likelihood).items()}
    return replace(likelihood, **parts) if parts else likelihood


def _apart(compute: Callable[..., Any], function: str, call: ObjectiveArguments, posterior: Posterior | None) -> ELBO:
    """The two terms one after the other, where features are split and the KL, which is there once, is not."""
    absent: dict[str, Any] = dict.fromkeys(("mu", *SCALES, "kl"))
    alone = call._replace(**absent, beta=1.0)
    recon = objective(compute, function, alone, None).recon
    if posterior is not None:
        from .latent import kl_divergence

        kl = divergence(kl_divergence, function, posterior, call.reduction)
    else:
        assert call.kl is not None
        kl = call.kl if call.reduction == "none" else call.kl.sum()
        kl = kl / call.recon.shape[0] if call.reduction == "batchmean" else kl
    return ELBO(recon + call.beta * kl, recon, kl)
