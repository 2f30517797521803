"""The README keeps its word: its code runs, and its scalings are equal. Its table of features: test_features.py. The
pages of the site, by the same functions: test_docs.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import assert_whole, leaf
from torch import Tensor

import pyvae

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
pytestmark = pytest.mark.usefixtures("kernels")


def rows(head: str, page: str = README) -> list[list[str]]:
    """The cells of the table that begins so."""
    table = page[page.index(head) :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


# ---- code and links --------------------------------------------------------------------------------------------------


def run_blocks(page: str) -> int:
    """Runs a page's blocks of Python, one after another, with one set of names; how many there are. What they call a
    loss has to be one."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
        loss = names.get("loss", torch.zeros(()))
        assert isinstance(loss, Tensor) and loss.isfinite() and loss.ndim == 0, block
    return len(blocks)


def test_its_code_runs() -> None:
    assert run_blocks(README) >= 3


def test_what_it_points_at_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]*)?\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.M)
    }
    for anchor in re.findall(r"\]\(#([\w-]+)\)", README):
        assert anchor in headings


# ---- the usual scalings ----------------------------------------------------------------------------------------------

SCALINGS = rows("| instead of |")


@pytest.mark.parametrize("row", SCALINGS, ids=lambda row: row[0])
def test_scaling(row: list[str]) -> None:
    assert_scaling(row)


def assert_scaling(row: list[str]) -> None:
    """Value and gradients, by the very text of the page."""
    usual, options = (cell.strip("`") for cell in row)
    torch.manual_seed(0)
    B, D = 6, 9
    x = torch.rand(B, D)
    given = [
        leaf(torch.rand(B, D) if "with_logits" not in usual else torch.randn(B, D)),
        *map(leaf, torch.randn(2, B, 3)),
    ]
    r, mu, logvar = given
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    names = {"F": F, "r": r, "x": x, "kld": kld, "B": B, "D": D, "beta": 0.3, "w": 0.7}
    want = eval(usual, names)
    keywords = {} if options == "nothing more" else eval(f"dict({options})", names)
    got = pyvae.elbo_loss(r, x, mu, logvar, **keywords)
    assert_whole(got, want)
    for mine, usual_one in zip(torch.autograd.grad(got, given), torch.autograd.grad(want, given), strict=True):
        assert_whole(mine, usual_one)
