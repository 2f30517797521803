"""The README keeps its word: it is short, its code runs, and what it points at is there. The pages of the site, by the
same functions: test_docs.py."""

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


def rows(head: str, page: str) -> list[list[str]]:
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


def test_it_is_short() -> None:
    assert len(README.split()) <= 1500


def anchors(page: str) -> set[str]:
    """Of its headings, as Git hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}


def test_what_it_points_at_is_there() -> None:
    for path, anchor in re.findall(r"\]\(([^)#]*)#?([\w-]*)\)", README):
        if path.startswith("https://"):
            continue
        file = ROOT / (path or "README.md")
        assert file.exists(), path
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), (path, anchor)


# ---- the usual scalings ----------------------------------------------------------------------------------------------


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
