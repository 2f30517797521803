"""What two processes check of DTensors, against one process: placements, values and gradients.

They run this file (`python dtensor_checks.py RANK FILE`, of which the file is where they meet): all the checks, one
after the other. test_dtensor.py says how each ended on both.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dtensor_compare import CHECKS, PROCESSES, B, D, L, check, compared, distributed, numbers
from torch import Tensor

import pyvae


def latent_checks() -> None:
    from torch.distributed.tensor import Partial, Replicate, Shard

    for placement, kept in ((Shard(0), Shard(0)), (Replicate(), Replicate()), (Shard(1), Replicate())):
        two, name = (placement, placement), f"{placement}"

        @check(f"sample {name}", two, kept)
        def _(two: Any, kept: Any) -> None:
            mu, logvar = numbers(B, L), numbers(B, L, seed=1)
            compared(lambda *x: pyvae.reparameterize_kl(*x, seed=7, row_offset=2), (mu, logvar), two, (kept, kept))
            z = pyvae.reparameterize(*(distributed(x, p) for x, p in zip((mu, logvar), two, strict=True)), seed=7)
            assert torch.equal(z.full_tensor(), pyvae.reparameterize(mu, logvar, seed=7))  # to the bit

        @check(f"several samples {name}", two, kept)
        def _(two: Any, kept: Any) -> None:
            mu, logvar = numbers(B, L), numbers(B, L, seed=1)
            placed = Shard(1) if kept == Shard(0) else kept
            compared(lambda *x: pyvae.reparameterize_kl(*x, seed=7, samples=4), (mu, logvar), two, (placed, kept))
            inputs = (mu, logvar, numbers(2, B, L, seed=2))
            compared(
                lambda m, s, e: [pyvae.reparameterize(m, std=s, eps=e, samples=2)],
                inputs,
                (*two, Replicate()),
                (placed,),
            )

        @check(f"sample with eps {name}", two, kept)
        def _(two: Any, kept: Any) -> None:
            inputs = (numbers(B, L), numbers(B, L, seed=1), numbers(B, L, seed=2))
            compared(lambda m, s, e: [pyvae.reparameterize(m, std=s, eps=e)], inputs, (*two, Replicate()), (kept,))

        @check(f"sample with a prior {name}", two, kept)
        def _(two: Any, kept: Any) -> None:
            inputs = (numbers(B, L), numbers(B, L, seed=1), numbers(L, seed=2), numbers(B, L, seed=3))
            compared(
                lambda m, s, p, q: pyvae.reparameterize_kl(m, s, seed=1, prior=(p, q), logvar_range=(-1.0, 0.5)),
                inputs,
                (*two, Replicate(), two[0]),
                (kept, kept),
            )

        @check(f"divergence {name}", two, kept)
        def _(two: Any, kept: Any) -> None:
            inputs = (numbers(B, L), numbers(B, L, seed=1))
            summed = Partial() if kept == Shard(0) else Replicate()
            for reduction, placed in (("none", kept), ("elements", kept), ("sum", summed), ("batchmean", summed)):
                compared(lambda *x, r=reduction: [pyvae.kl_divergence(*x, reduction=r)], inputs, two, (placed,))

    for placement in (Shard(0), Replicate()):

        @check(f"under a mixture {placement}", placement)
        def _(placement: Any) -> None:
            inputs = (numbers(B, L), numbers(B, L, seed=1), numbers(4, L, seed=2), numbers(4, seed=3))
            whole = Replicate()

            def densities(mu: Tensor, logvar: Tensor, mean: Tensor, logits: Tensor) -> list[Tensor]:
                prior = pyvae.Mixture(mean, mean / 2, logits=logits)
                z, kl = pyvae.reparameterize_kl(mu, logvar, seed=7, prior=prior)
                each = pyvae.mixture_log_prob(z, prior, reduction="elements")
                return [z, kl, each, pyvae.gaussian_log_prob(z, mu, logvar)]

            compared(densities, inputs, (placement, placement, whole, whole), (placement,) * 4)

    @check("drawn seeds")
    def _() -> None:
        mu, logvar = numbers(B, L), numbers(B, L, seed=1)
        torch.manual_seed(3)
        z = pyvae.reparameterize(distributed(mu, Shard(0)), distributed(logvar, Shard(0)))
        torch.manual_seed(3)
        # Equal generators: not the same noise twice.
        assert torch.equal(z.full_tensor(), pyvae.reparameterize(mu, logvar))
        torch.manual_seed(10 + dist.get_rank())
        z = pyvae.reparameterize(distributed(mu, Replicate()), distributed(logvar, Replicate())).to_local()
        all_of_them = [torch.empty_like(z) for _ in range(PROCESSES)]
        dist.all_gather(all_of_them, z)
        assert torch.equal(*all_of_them)  # replicated, though the generators differ


LIKELIHOODS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {  # and its parameters' shapes
    "bernoulli_logits": (lambda: "bernoulli_logits", ()),
    "bernoulli": (lambda: "bernoulli", ()),
    "Gaussian": (pyvae.Gaussian, ((D,),)),
    "Laplace": (pyvae.Laplace, ((B, 1),)),
    "NegativeBinomial": (pyvae.NegativeBinomial, ((B, D),)),
    "NegativeBinomial, softmax": (pyvae.NegativeBinomial, ((D,), (B,))),
    "Gaussian of a number": (lambda: pyvae.Gaussian(0.5), ()),
    "NegativeBinomial of numbers, softmax": (lambda: pyvae.NegativeBinomial(0.5, 1.5), ()),
    "multinomial": (lambda: "multinomial", ()),
}


def objective_checks() -> None:
    from torch.distributed.tensor import Partial, Replicate, Shard

    for placement in (Shard(0), Shard(1), Replicate()):
        for name, (likelihood, shapes) in LIKELIHOODS.items():
            over_rows = name == "multinomial" or name.endswith("softmax")
            kept = Replicate() if over_rows and placement == Shard(1) else placement
            rows = Partial() if kept == Shard(1) else kept
            summed = Replicate() if kept == Replicate() else Partial()

            @check(f"{name} {placement}", likelihood, shapes, placement, kept, rows, summed)
            def _(likelihood: Any, shapes: Any, placement: Any, kept: Any, rows: Any, summed: Any) -> None:
                parameters = [numbers(*shape, seed=4 + i) for i, shape in enumerate(shapes)]
                weight = numbers(D, seed=8)
                inputs = (numbers(B, D), weight, *parameters)
                placements = (placement, Replicate(), *(Replicate() for _ in parameters))
                target = numbers(B, D, seed=2)
                split_target = distributed(target, placement)
                reductions = (("none", rows), ("sum", summed), ("batchmean", summed), ("elements", kept))
                for reduction, placed in reductions:

                    def loss(x: Tensor, w: Tensor, *p: Tensor, reduction: str = reduction) -> list[Tensor]:
                        t = target if type(x) is Tensor else split_target
                        like = likelihood(*p)
                        return [pyvae.reconstruction_loss(x, t, likelihood=like, weight=w, reduction=reduction)]

                    compared(loss, inputs, placements, (placed,))

        @check(f"a distribution's log_prob {placement}", placement)
        def _(placement: Any) -> None:
            target = 10 * numbers(B, D, seed=3).round()
            split_target = distributed(target, placement)

            def log_prob(mu: Tensor, theta: Tensor) -> list[Tensor]:
                own = pyvae.distributions.NegativeBinomial(mu=mu, theta=theta)
                return [own.log_prob(target if type(mu) is Tensor else split_target)]

            compared(log_prob, (numbers(B, D), 1 + numbers(D, seed=4)), (placement, Replicate()), (placement,))

        @check(f"several samples of recon {placement}", placement)
        def _(placement: Any) -> None:
            rows = {Shard(0): Shard(1), Shard(1): Partial()}.get(placement, Replicate())
            moved = Shard(placement.dim + 1) if isinstance(placement, Shard) else placement
            target = numbers(B, D, seed=3)
            split_target = distributed(target, placement)
            summed = Replicate() if placement == Replicate() else Partial()
            for reduction, placed in (("none", rows), ("sum", summed), ("batchmean", summed), ("elements", moved)):

                def losses(x: Tensor, v: Tensor, reduction: str = reduction) -> list[Tensor]:
                    t = target if type(x) is Tensor else split_target
                    return [pyvae.reconstruction_loss(x, t, likelihood=pyvae.Gaussian(v), reduction=reduction)]

                compared(losses, (numbers(3, B, D), numbers(D, seed=4)), (moved, Replicate()), (placed,))

        @check(f"with a posterior {placement}", placement)
        def _(placement: Any) -> None:
            inputs = (numbers(B, D), numbers(B, L, seed=1), numbers(B, L, seed=2), torch.tensor(0.5))
            row_placed = Shard(0) if placement == Shard(0) else Replicate()
            placements = (placement, row_placed, row_placed, Replicate())
            target = numbers(B, D, seed=3)
            split_target = distributed(target, placement)
            for reduction in ("none", "sum", "batchmean"):

                def losses(x: Tensor, m: Tensor, s: Tensor, beta: Tensor, reduction: str = reduction) -> list[Tensor]:
                    t = target if type(x) is Tensor else split_target
                    terms = pyvae.elbo_terms(x, t, m, s, beta=beta, likelihood="gaussian", reduction=reduction)
                    _, kl = pyvae.reparameterize_kl(m, s, seed=1)
                    loss = pyvae.elbo_loss(x, t, kl=kl, beta=0.5, likelihood="gaussian", reduction=reduction)
                    return [
                        x if type(x) is Tensor else x.redistribute(placements=[Replicate()]) for x in (*terms, loss)
                    ]

                compared(losses, inputs, placements, (Replicate(),) * 4)
            compiled = torch.compile(losses, backend="aot_eager", fullgraph=True, dynamic=False)
            compared(compiled, inputs, placements, (Replicate(),) * 4)

    @check("images and their flattened form")
    def _() -> None:
        target = numbers(B, D, seed=3)
        for placement in (Shard(0), Shard(2)):
            split = distributed(target, Shard(0))
            compared(
                lambda x, split=split: [
                    pyvae.elbo_loss(x, target if type(x) is Tensor else split, likelihood="laplace", reduction="none")
                ],
                (numbers(B, 2, 3),),
                (placement,),
                (Shard(0) if placement == Shard(0) else Replicate(),),
            )

    @check("a term without an upstream gradient")
    def _() -> None:
        """Its inputs have been redistributed, and get 0."""
        t, x, mu, logvar = (numbers(B, n, seed=i) for i, n in enumerate((D, D, L, L)))
        split = [distributed(each.requires_grad_(), Shard(1)) for each in (x, mu, logvar)]
        terms = pyvae.elbo_terms(split[0], distributed(t, Shard(1)), *split[1:], likelihood="laplace")
        gradients = torch.autograd.grad(terms.kl.full_tensor(), split[1:])
        terms = pyvae.elbo_terms(split[0], distributed(t, Shard(1)), *split[1:], likelihood="multinomial")
        zeros = torch.autograd.grad(terms.recon.full_tensor(), split[1:])
        torch.testing.assert_close(gradients[0].full_tensor(), mu.detach())
        assert not any(zero.full_tensor().any() for zero in zeros)

    @check("errors in words")
    def _() -> None:
        x = numbers(B, D)
        split = distributed(x, Shard(0))
        with pytest.raises(TypeError, match=r"^elbo_loss: `target` must be a DTensor, as `recon` is, but is a Tensor"):
            pyvae.elbo_loss(split, x)
        with pytest.raises(TypeError, match=r"^elbo_loss: `recon` must be a DTensor, as other arguments are"):
            pyvae.elbo_loss(x, split)
        with pytest.raises(
            TypeError, match=r"^reparameterize: `logvar` must be a DTensor, as `mu` is, but is a Tensor"
        ):
            pyvae.reparameterize(split, x)
        with pytest.raises(TypeError, match=r"^elbo_loss: `logvar` must be a DTensor, as `recon` is, but is a Tensor"):
            pyvae.elbo_loss(split, split, likelihood=pyvae.Gaussian(numbers(D)))
        with pytest.raises(ValueError, match=r"^elbo_loss: `target` must have recon's shape"):
            pyvae.elbo_loss(split, distributed(numbers(B, D + 1), Shard(0)))
        with pytest.raises((NotImplementedError, RuntimeError), match="sharding strategy"):
            torch.ops.pyvae.kl_divergence(split, split, 0, None, None, None, None, 0, None, None, 0, 0)


def main(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", world_size=PROCESSES, rank=rank)
    latent_checks()
    objective_checks()
    ended = {}
    for name, function in CHECKS.items():
        try:
            function()
            ended[name] = ""
        except Exception:
            ended[name] = traceback.format_exc()
    print(json.dumps(ended))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
