"""The same bits whatever runs them: instruction sets, numbers of threads, Python threads, checkpoints."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import probe
import pytest
import torch
from cases import DTYPES, all_equal, posterior, rng_state
from families import PLAIN, SCALES
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pyvae

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.torch_sensitive("at::parallel_for, checkpoints")]

# Short rows, rows of one chunk and of many, one row and one feature, and as many chunks as busy several threads.
SHAPES = [(2001, 20), (37, 513), (67, 1031), (3, 9001), (1, 1 << 18), (40_001,)]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Two tensors in (0, 1), by numpy: torch's own functions differ between instruction sets and numbers of threads."""
    numbers = np.random.default_rng(8).uniform(1e-3, 0.999, (2, *shape))
    return tuple(torch.from_numpy(a).to(device, dtype) for a in numbers)


def digests(device: str = "cpu") -> dict[str, str]:
    """Of everything that the kernels compute: a few characters that are others when any bit is."""
    results: dict[str, Any] = {}
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        for kind in SCALES:
            mu, scale = (t.requires_grad_() for t in inputs(shape, dtype, device))
            z, kl = pyvae.reparameterize_kl(mu, **{kind: scale}, seed=17, row_offset=3)
            slopes = torch.autograd.grad([z, kl], [mu, scale], [scale.detach(), torch.arange(len(kl)).to(kl)])
            total = pyvae.kl_divergence(mu, **{kind: scale}, reduction="sum")
            results[f"{kind} {shape} {dtype}"] = [z, kl, *slopes, total]
            mean, width = (t[0].requires_grad_() for t in inputs(shape, dtype, device))
            options = {"prior": (mean, width), "logvar_range": (0.1, 0.7) if kind == "logvar" else None}
            each = pyvae.kl_divergence(mu, **{kind: scale}, **options, reduction="elements")
            four = torch.autograd.grad(each, [mu, scale, mean, width], (scale * scale).to(each).detach())
            results[f"{kind} {shape} {dtype} prior"] = [each, *four]
        for likelihood in PLAIN:
            recon, target = inputs(shape, dtype, device)
            loss = pyvae.elbo_loss(recon.requires_grad_(), target, likelihood=likelihood)
            rows = pyvae.elbo_loss(recon, target, likelihood=likelihood, reduction="none")
            results[f"{likelihood} {shape} {dtype}"] = [loss, rows, *torch.autograd.grad(loss, recon)]
    for name, tensors in results.items():
        content = (t.detach().flatten().view(torch.uint8).cpu().numpy().tobytes() for t in tensors)
        results[name] = hashlib.sha256(b"".join(content)).hexdigest()[:16]
    return results


# ---- instruction sets and threads -----------------------------------------------------------------------------------

REPORT = """
import json, pyvae, test_noise_repeatable
print(json.dumps([pyvae.build_info()["instruction_set"], test_noise_repeatable.digests()]))
"""


def test_instruction_sets_give_the_same_bits() -> None:
    expected = digests()
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    for capability, variant in {"default": "baseline", "avx2": "avx2", "avx512": "avx512"}.items():
        if variant in probe.supported():
            environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
            command = [sys.executable, "-c", REPORT]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            assert json.loads(run.stdout) == [variant, expected]


@pytest.mark.usefixtures("threads")
def test_numbers_of_threads_give_the_same_bits() -> None:
    torch.set_num_threads(1)
    expected = digests()
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        assert digests() == expected


def test_repeated_runs_give_the_same_bits(device: str) -> None:
    """Also where blocks finish in another order each time."""
    expected = digests(device)
    for _ in range(3):
        assert digests(device) == expected


@pytest.mark.parametrize("own_generator", [False, True])
def test_python_threads_share_a_generator_without_repeating_a_draw(own_generator: bool, device: str) -> None:
    source = {"generator": torch.Generator(device)} if own_generator else {}
    restart = source["generator"].manual_seed if own_generator else torch.manual_seed
    zeros = torch.zeros(1, 4, device=device)

    def work(_: int) -> tuple[float, ...]:
        return tuple(pyvae.reparameterize(zeros, zeros, **source)[0].tolist())

    restart(1)
    with ThreadPoolExecutor(8) as pool:
        draws = list(pool.map(work, range(4000)))
    assert len(set(draws)) == len(draws)
    restart(1)
    assert {work(i) for i in range(4000)} == set(draws)  # the same seeds, in whatever order the threads took them


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_draws_the_same_noise_again(backend: str, reentrant: bool, device: str) -> None:
    mu, logvar = (t.requires_grad_() for t in posterior("logvar", (9, 31), device=device))

    def block(mu: Tensor, logvar: Tensor) -> Tensor:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return pyvae.elbo_loss(z, torch.ones_like(z), kl=kl, likelihood="bernoulli_logits", beta=0.5)

    torch.manual_seed(4)
    expected = block(mu, logvar)
    slopes = torch.autograd.grad(expected, [mu, logvar])
    after = rng_state(device)
    torch.manual_seed(4)
    got = checkpoint(block, mu, logvar, use_reentrant=reentrant)
    torch.rand(3, device=device)  # the recomputation must not start from here
    before_backward = rng_state(device)
    got.backward()
    assert torch.equal(got, expected)
    assert all_equal((mu.grad, logvar.grad), slopes)
    assert torch.equal(rng_state(device), before_backward)
    torch.manual_seed(4)
    block(mu, logvar)
    assert torch.equal(rng_state(device), after)
