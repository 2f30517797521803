"""The noise: exact values, golden bits, splits, seeds, generators, layouts and types."""

from __future__ import annotations

import itertools
import json

import golden
import noise_truth
import pytest
import torch
from cases import DTYPES, LAYOUTS, generator, posterior, rng_state
from families import SCALES
from golden import draw
from gpu import rows_share_blocks
from tolerances import LOSS, NORMAL_ULP, REFERENCE_NORMAL_ULP

import pyvae

pytestmark = pytest.mark.torch_sensitive("generators and the order of their draws")

FEATURES = (1, 2, 3, 4, 5, 20, 784, 1000)
SEEDS = [0, 1, -1, 12345, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 0x1234567_89ABCDEF]
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# Those that keep values and shape.
SAME_VALUES = ("contiguous", "strided", "sliced", "batch_last", "odd_offset", "channels_last")


# ---- values ---------------------------------------------------------------------------------------------------------


@FLOATS
@pytest.mark.parametrize(
    ("seed", "row_offset", "rows", "features"),
    [
        *((seed, 0, 257, 63) for seed in SEEDS),
        (2, 0, 2048, 512),
        *((9, *index) for index in ((2**31, 4, 3), (2**32 - 1, 4, 5), (2**34 + 3, 4, 1), (10**15, 4, 31))),
        (9, 2**61 - 5, 4, 4),
    ],
)
def test_draw_is_the_exact_transform(
    backend: str, seed: int, row_offset: int, rows: int, features: int, dtype: torch.dtype, device: str
) -> None:
    got = draw(seed, rows, features, dtype, row_offset, device=device).flatten().cpu().numpy()
    exact = noise_truth.normals(seed, row_offset * features, got.size, dtype == torch.float64)
    limit = NORMAL_ULP if backend == "kernels" else REFERENCE_NORMAL_ULP[dtype]
    assert noise_truth.ulps(got, exact).max() <= limit


@pytest.mark.parametrize("entry", json.loads(golden.FILE.read_text()), ids=lambda e: f"{e['dtype']}-{e['seed']}")
def test_golden_bits(entry: dict, device: str) -> None:
    dtype = golden.DTYPES[entry["dtype"]]
    values = draw(entry["seed"], entry["rows"], entry["features"], dtype, entry["row_offset"], device=device)
    assert golden.bits(values) == entry["bits"]


# ---- one stream, however it is cut ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", FEATURES)
def test_splits_equal_the_whole(backend: str, features: int, dtype: torch.dtype, device: str) -> None:
    rows = 23
    mu, logvar = posterior("logvar", (rows, features), dtype, device=device)
    whole, whole_kl = pyvae.reparameterize_kl(mu, logvar, seed=77, row_offset=11)
    for cuts in [(0, 1, rows), (0, 7, 8, 16, rows), tuple(range(rows + 1))]:
        parts = [
            pyvae.reparameterize_kl(mu[a:b], logvar[a:b], seed=77, row_offset=11 + a)
            for a, b in itertools.pairwise(cuts)
        ]
        assert torch.equal(torch.cat([z for z, _ in parts]), whole)
        kl = torch.cat([kl for _, kl in parts])
        if not rows_share_blocks(device) or backend == "reference":
            assert torch.equal(kl, whole_kl)
        else:
            torch.testing.assert_close(kl, whole_kl, rtol=LOSS[kl.dtype], atol=0)


def test_features_are_flattened_in_logical_order(backend: str, device: str) -> None:
    """A vector has one a row."""
    for shape in ((4, 3, 5, 7), (9,)):
        mu, logvar = posterior("logvar", shape, device=device)
        flat = pyvae.reparameterize(mu.view(len(mu), -1), logvar.view(len(mu), -1), seed=3, row_offset=2)
        assert torch.equal(pyvae.reparameterize(mu, logvar, seed=3, row_offset=2), flat.view(shape))


# ---- seeds and generators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_seed_counts_modulo_2_64(backend: str, seed: int, device: str) -> None:
    signed = (seed + 2**63) % 2**64 - 2**63
    expected = draw(seed, 5, 9, torch.float32, device=device)
    inside = torch.tensor([[0, signed]], device=device)
    for same in (signed, inside[0, 1].clone(), inside[0, 1:].clone(), inside[0, 1]):
        assert torch.equal(draw(same, 5, 9, torch.float32, device=device), expected)


def test_every_seed_bit_and_row_counts(backend: str, device: str) -> None:
    seeds = [0, *(1 << bit for bit in range(64))]
    draws = torch.stack([draw(seed, 2, 8, torch.float32, device=device) for seed in seeds])
    assert len(torch.unique(draws.flatten(1), dim=0)) == len(seeds)
    assert len(torch.unique(draws)) == draws.numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_manual_seed_repeats_and_calls_differ(backend: str, dtype: torch.dtype, device: str) -> None:
    mu, logvar = posterior("logvar", (6, 20), dtype, device=device)
    torch.manual_seed(5)
    first, second = pyvae.reparameterize(mu, logvar), pyvae.reparameterize_kl(mu, logvar)[0]
    torch.manual_seed(5)
    assert torch.equal(pyvae.reparameterize_kl(mu, logvar)[0], first)
    assert torch.equal(pyvae.reparameterize(mu, logvar), second)
    assert not torch.isclose(first, second).all(dim=1).any()


def test_seed_is_drawn_as_documented(backend: str, device: str) -> None:
    mu, logvar = posterior("logvar", (6, 20), device=device)
    ours, theirs = generator(6, device), generator(6, device)
    for _ in range(3):
        seed = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device, generator=theirs)
        expected = pyvae.reparameterize(mu, logvar, seed=seed)
        assert torch.equal(pyvae.reparameterize(mu, logvar, generator=ours), expected)
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_default_generator_moves_only_when_it_is_the_source(backend: str, device: str) -> None:
    mu, logvar = posterior("logvar", (6, 20), device=device)
    before, of_the_cpu = rng_state(device), rng_state("cpu")
    pyvae.reparameterize(mu, logvar, seed=1)
    pyvae.reparameterize(mu, logvar, eps=torch.zeros_like(mu))
    pyvae.reparameterize(mu, logvar, generator=torch.Generator(device))
    assert torch.equal(rng_state(device), before)
    pyvae.reparameterize(mu, logvar)
    assert not torch.equal(rng_state(device), before)
    assert torch.equal(rng_state("cpu"), of_the_cpu) or device == "cpu"


# ---- types, eps, sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_16_bit_types_round_the_float32_sample_once(scale: str, dtype: torch.dtype, device: str) -> None:
    mu, s = posterior(scale, (50, 33), dtype, device=device)
    wide = pyvae.reparameterize(mu.float(), **{scale: s.float()}, seed=13)
    assert torch.equal(pyvae.reparameterize(mu, **{scale: s}, seed=13), wide.to(dtype))


@pytest.mark.parametrize("pair", list(itertools.permutations(DTYPES, 2)), ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_mixed_types_draw_for_the_wider(backend: str, pair: tuple[torch.dtype, torch.dtype], device: str) -> None:
    zeros, ones = (torch.full((3, 10), n, dtype=dtype, device=device) for n, dtype in enumerate(pair))
    compute = torch.float64 if torch.float64 in pair else torch.float32
    z = pyvae.reparameterize(zeros, std=ones, seed=21)
    assert z.dtype == torch.promote_types(*pair)
    assert torch.equal(z, draw(21, 3, 10, compute, device=device).to(z.dtype))


@FLOATS
def test_eps_is_used_as_given(backend: str, dtype: torch.dtype, device: str) -> None:
    mu, logvar = posterior("logvar", (7, 19), dtype, device=device)
    std, eps = logvar.exp(), mu.roll(1)
    assert torch.equal(pyvae.reparameterize(mu, std=std, eps=eps), mu + eps * std)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,), (1,), (1, 1), (2, 0, 3)], ids=str)
def test_smallest_shapes(backend: str, shape: tuple[int, ...], device: str) -> None:
    for dtype in DTYPES:
        zeros = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
        z, kl = pyvae.reparameterize_kl(zeros, std=torch.ones_like(zeros), seed=1)
        assert z.shape == shape and z.dtype == dtype
        assert kl.shape == shape[:1] and not kl.any()
        stream = draw(1, 1, max(z.numel(), 1), dtype, device=device).flatten()
        assert torch.equal(z.detach(), stream[: z.numel()].view(shape))
        (z.sum() + kl.sum()).backward()
        assert torch.equal(zeros.grad, torch.ones_like(zeros))


# ---- backward draws it again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", SAME_VALUES)
@FLOATS
@pytest.mark.parametrize("scale", SCALES)
def test_backward_draws_the_same_noise(backend: str, scale: str, dtype: torch.dtype, layout: str, device: str) -> None:
    relaid = LAYOUTS[layout]
    mu, s = (relaid(x).requires_grad_() for x in posterior(scale, (5, 4, 3, 6), dtype, device=device))
    noise = pyvae.reparameterize(torch.zeros_like(mu), std=torch.ones_like(mu), seed=31, row_offset=2)
    ways = ({"seed": 31, "row_offset": 2}, {"eps": noise})
    drawn, given = (pyvae.reparameterize(mu, **{scale: s}, **way) for way in ways)
    upstream = relaid(torch.ones_like(drawn))
    slope, want = (torch.autograd.grad(z, [mu, s], upstream) for z in (drawn, given))
    assert torch.equal(slope[0], torch.ones_like(mu))
    assert torch.equal(slope[1], want[1])


def test_backward_remembers_the_seed_that_was_drawn(backend: str, device: str) -> None:
    mu, std = torch.zeros(4, 9, device=device), torch.ones(4, 9, device=device, requires_grad=True)
    samples = [pyvae.reparameterize(mu, std=std) for _ in range(3)]
    torch.manual_seed(0)
    for z in reversed(samples):
        assert torch.equal(torch.autograd.grad(z.sum(), std)[0], z.detach())
