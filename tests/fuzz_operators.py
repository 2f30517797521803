"""The compiled operators with legal arguments of which one or two are replaced by wrong ones.

`python fuzz_operators.py CALLS` prints how many calls of each gave results and errors. It is a process of its own,
since what it looks for may end it. Whatever comes, each call has to end in a result or in an error in words. A result
is on the device of what it was made from, and has the types and shapes of that of meta tensors, which the same refusals
guard.
"""

from __future__ import annotations

import collections
import faulthandler
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

import pyvae
from pyvae._codes import KL_REDUCTIONS, LIKELIHOODS, REDUCTIONS, SCALES

OPERATORS = tuple(
    sorted(
        name.removeprefix("pyvae::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("pyvae::") and name != "pyvae::reference_normal"  # which is plain Python
    )
)
ERRORS = (RuntimeError, ValueError, TypeError, NotImplementedError)
SHAPES = ((3, 5), (1, 1), (0, 4), (4, 0), (2,), (3, 2, 4), (2, 1, 3, 2), (1, 2, 1, 2, 1, 2, 1, 2, 1, 3))
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WRONG_TYPES = (torch.complex64, torch.int64, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn, *TYPES)
CODES = (-1, 99, 2**31, 2**62, -(2**63), 2**63 - 1, 3, 4, 10)
NUMBERS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e308)


def tensor(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """Of numbers in (0, 1), which are legal for every argument; some of them not contiguous."""
    dtype = dtype or rng.choice(TYPES)
    count = torch.Size(shape).numel()
    values = (torch.arange(float(count)) + 1).view(shape) / (count + 1)
    if len(shape) > 1 and rng.random() < 0.25:
        return values.transpose(0, -1).contiguous().transpose(0, -1).to(dtype)
    return values.to(dtype)


def legal(rng: random.Random) -> dict[str, Any]:
    """Arguments by their names, for every operator."""
    shape, latent = rng.choice(SHAPES), rng.choice(SHAPES)
    latent, batch = (shape[0], *latent[1:]), shape[0]
    name = rng.choice(tuple(LIKELIHOODS))
    member = LIKELIHOODS[name]
    scale, posterior, reduction = rng.randrange(len(SCALES)), rng.random() < 0.5, rng.randrange(len(REDUCTIONS))
    recon, per_row = tensor(rng, shape), () if reduction else (batch,)

    def broadcast() -> Tensor:
        return tensor(rng, rng.choice(((), (1,) * len(shape), shape, (batch,) + (1,) * (len(shape) - 1))))

    def maybe(given: Callable[[], Any], there: bool = True) -> Any:
        return given() if there and rng.random() < 0.5 else None

    samples = rng.choice((0, 0, 1, 3))
    drawn = (samples, *latent) if samples else latent
    eps = maybe(lambda: tensor(rng, drawn))
    prior = rng.random() < 0.5
    bounds = [torch.tensor(x) if scale == 0 and rng.random() < 0.5 else None for x in (-1.0, 1.0)]
    return {
        "latent": latent,
        "recon": recon,
        "target": tensor(rng, shape),
        "weight": maybe(broadcast),
        "pos_weight": maybe(broadcast, member.takes_pos_weight),
        "likelihood": tuple(LIKELIHOODS).index(name),
        "parameters": [broadcast() for _ in member.parameters],
        "log_library": maybe(lambda: tensor(rng, (batch,)), member.softmax == "optional"),
        "mu": tensor(rng, latent) if posterior else None,
        "scale": tensor(rng, latent) if posterior else None,
        "scale_kind": scale,
        "kl": None if posterior else maybe(lambda: tensor(rng, (batch,), torch.float32)),
        "beta_tensor": maybe(lambda: tensor(rng, ())),
        "beta": 0.5,
        "reduction": reduction,
        "output_mask": 0b0001,
        "upstream": tensor(rng, (batch,)),
        "gradient": torch.ones_like(recon),
        "parameter_gradients": [torch.ones(shape[1:])] if reduction and rng.random() < 0.5 else [],
        "grad_loss": tensor(rng, per_row),
        "grad_recon": maybe(lambda: tensor(rng, per_row)),
        "grad_kl": maybe(lambda: tensor(rng, per_row)),
        "to_kl": rng.random() < 0.5,
        "eps": eps,
        "seed": None if eps is not None else torch.tensor([7]),
        "row_offset": rng.choice((0, 5)),
        "samples": samples,
        "prior_mean": tensor(rng, latent) if prior else None,
        "prior_scale": tensor(rng, latent[-1:] if len(latent) > 1 else latent) if prior else None,
        "low": bounds[0],
        "high": bounds[1],
        "with_kl": rng.random() < 0.5,
        "with_z": rng.random() < 0.5,
        "grad_z": tensor(rng, drawn),
        "to_prior": False,
        "generator": None,
    }


def of_latent(rng: random.Random, operator: str, given: dict[str, Any]) -> None:
    """What the encoder side takes otherwise: its mu and scale are always there."""
    latent = given["latent"]
    given["mu"], given["scale"] = tensor(rng, latent), tensor(rng, latent)
    given["grad_kl"] = tensor(rng, rng.choice(((), latent[:1], latent)))
    given["to_prior"] = given["prior_mean"] is not None and rng.random() < 0.5
    given["reduction"] = rng.randrange(len(KL_REDUCTIONS))
    if operator == "latent_draw":
        given["eps"] = given["seed"] = None


def of_mixture(rng: random.Random, given: dict[str, Any]) -> None:
    """Of rows and components, which are theirs or all rows'."""
    *samples, batch, features = rng.choice(((3, 5), (1, 1), (0, 4), (4, 0), (2, 3, 4), (40, 2, 7), (2, 1, 3, 2)))
    components = (rng.choice((1, 2, 20)), features)
    components = (batch, *components) if rng.random() < 0.5 else components
    given["elements"], given["with_normalizers"] = rng.random() < 0.5, rng.random() < 0.5
    values = (*samples, batch, *((features,) if given["elements"] else ()))
    given |= {
        "z": tensor(rng, (*samples, batch, features)),
        "mean": tensor(rng, components),
        "scale": tensor(rng, components),
        "logits": tensor(rng, components[:-1]) if rng.random() < 0.5 else None,
        "normalizers": tensor(rng, (2, *values)),
        "grad": tensor(rng, values),
        "to_mixture": rng.random() < 0.5,
    }


def wrong_tensors(rng: random.Random, given: Tensor | None) -> Iterator[Any]:
    """What may stand in a tensor's place."""
    like = torch.ones(3, 5) if given is None else given
    yield None
    yield torch.ones(())
    yield torch.ones(0)
    yield torch.ones(0, 3)
    yield tensor(rng, rng.choice(SHAPES))
    yield torch.ones((*like.shape, 2))
    yield torch.ones((like.shape[0] + 1, *like.shape[1:]) if like.ndim else (2,))
    yield torch.ones_like(like).to(rng.choice(WRONG_TYPES))
    yield torch.ones_like(like).unsqueeze(0)
    yield like.to("meta")
    yield torch.ones((), dtype=like.dtype).expand(like.shape)  # all elements are one
    yield (
        torch.ones((*like.shape[:-1], 2 * like.shape[-1]), dtype=like.dtype)[..., ::2] if like.ndim else torch.ones(())
    )
    yield torch.ones_like(like).to_sparse() if not like.is_meta else None
    yield torch.zeros(like.shape, dtype=torch.complex64).conj().imag.to(like.dtype)
    yield torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    yield 3.5
    yield "gaussian"


def wrong(rng: random.Random, kind: str, given: Any) -> Any:
    """Something else for an argument of this type."""
    if "List" in kind:
        spoilt = [rng.choice(list(wrong_tensors(rng, x))) if rng.random() < 0.5 else x for x in given]
        return rng.choice((spoilt, given[1:], [*given, torch.ones(())], [*given, None], [torch.ones(())] * 9, None, 3))
    if "Tensor" in kind:
        return rng.choice(list(wrong_tensors(rng, given)))
    if "Generator" in kind:
        return rng.choice((torch.Generator(), 3, "cpu"))
    if kind in ("int", "SymInt"):
        return rng.choice((*CODES, None, 1.5, torch.ones(2)))
    if kind == "float":
        return rng.choice((*NUMBERS, None, "1", torch.ones(2)))
    return rng.choice((True, False, None, 2, "no"))


def on_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [on_meta(x) for x in value]
    return value.detach().to("meta").requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those among arguments or results, in lists as well."""
    parts = itertools.chain.from_iterable(value if isinstance(value, list) else (value,) for value in values)
    return [part for part in parts if isinstance(part, Tensor)]


def run(operator: Any, arguments: list[Any]) -> list[Any]:
    """The results' shapes and types, after their backward passes."""
    out = operator(*arguments)
    results = tensors(out if isinstance(out, tuple) else (out,))
    for result in results:
        assert result.device == arguments[0].device, "a result is on another device"
        if result.requires_grad:
            result.sum().backward(retain_graph=True)
    return [(tuple(result.shape), result.dtype) for result in results]


def call(rng: random.Random, name: str) -> str:
    """One call: "result", or the name of the error."""
    operator = getattr(torch.ops.pyvae, name).default
    given = legal(rng)
    if "mixture" in name:
        of_mixture(rng, given)
    elif "elbo" not in name:
        of_latent(rng, name, given)
    declared = operator._schema.arguments
    for argument in rng.sample(declared, rng.choice((0, 1, 1, 1, 2))):
        given[argument.name] = wrong(rng, str(argument.type), given[argument.name])
    arguments = [given[argument.name] for argument in declared]
    if name in ("elbo", "reparameterize", "kl_divergence", "mixture_log_prob"):
        for value in tensors(arguments):
            if value.is_floating_point() and value.is_leaf and rng.random() < 0.5:
                value.requires_grad_()
    try:
        found = run(operator, arguments)
    except ERRORS as error:
        assert str(error).strip(), "an error without words"
        return type(error).__name__
    if all(x.layout == torch.strided and not x.is_nested for x in tensors(arguments)):
        assert found == run(operator, [on_meta(x) for x in arguments]), "meta tensors give other types or shapes"
    return "result"


def main(calls: int) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(1700, exit=True)  # before the test's own limit, which would leave this running
    rng = random.Random(20131220)
    torch.set_num_threads(1)
    assert pyvae.build_info()["why_missing"] is None
    ends: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in OPERATORS}
    for index in range(calls):
        name = OPERATORS[index % len(OPERATORS)]
        print(f"call {index}, of {name}", file=sys.stderr)  # the last one is what failed
        ends[name][call(rng, name)] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main(int(sys.argv[1]))
