"""The pages of the site keep their word: their code runs, what they replace gives the same, and they are complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import assert_whole, leaf
from test_integrations import log_nb, log_zinb
from test_readme import assert_scaling, rows, run_blocks
from torch import Tensor, nn

import pyvae

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
MIGRATING = PAGES["migrating"]
pytestmark = pytest.mark.usefixtures("kernels", "threads")


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```python" in text])
def test_its_code_runs(page: str) -> None:
    torch.manual_seed(0)
    run_blocks(PAGES[page])


@pytest.mark.parametrize("row", rows("| instead of |", MIGRATING), ids=lambda row: row[0])
def test_scaling(row: list[str]) -> None:
    assert_scaling(row)


def test_each_likelihood_is_on_the_pages() -> None:
    """By its name, with its formula and with when to take it."""
    for likelihood in ("bernoulli", "bernoulli_logits", "continuous_bernoulli_logits", "gaussian", "laplace", "poisson",
                       "multinomial"):  # fmt: skip
        assert all(f'"{likelihood}"' in PAGES[page] for page in ("choosing", "mathematics"))
    for likelihood in ("Gaussian", "Laplace", "Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"):
        assert all(f"pyvae.{likelihood}(" in PAGES[page] for page in ("choosing", "mathematics"))


def test_each_public_name_is_in_the_api() -> None:
    listed = set(re.findall(r"^   pyvae\.([\w.]+)$", (DOCS / "api.rst").read_text(encoding="utf-8"), re.MULTILINE))
    modules = {"distributions", "reference", "__version__"}
    assert set(pyvae.__all__) - modules <= listed
    assert {f"distributions.{each}" for each in pyvae.distributions.__all__} <= listed


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS / path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_each_example_is_in_the_gallery() -> None:
    examples = DOCS.parent / "examples"
    scripts = {path.stem for path in examples.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")}
    gallery = module("_ext/gallery.py")
    assert set(gallery.EXAMPLES) == scripts
    assert all(title in gallery.contents(examples / "README.md") for title, *_ in gallery.EXAMPLES.values())
    text = (examples / "beta_tcvae.py").read_text("utf-8")
    assert gallery.with_heading(text, "A title").endswith(text[text.index("\nfrom __future__") :])  # the same code


def test_links_are_checked(tmp_path: Path) -> None:
    faults = module("check_links.py").faults
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#there">b</a><img src="data:,">')
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1><a href="a.html">a</a><a href="https://pytorch.org">c</a>')
    assert faults(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#gone"></a><a href="c.html"></a><script src="https://a.b/c.js">')
    assert {fault.split(" ")[1] for fault in faults(tmp_path)} == {"b.html#there:", "a.html#gone:", "c.html", "loads"}


# ---- what is replaced ------------------------------------------------------------------------------------------------


def images() -> dict[str, Any]:
    mu, logvar = leaf(torch.randn(6, 3)), leaf(torch.randn(6, 3))
    return {"recon_x": leaf(torch.rand(6, 784)), "x": torch.rand(6, 1, 28, 28), "mu": mu, "logvar": logvar}


class Theirs:
    """scvi-tools' distribution, by its formula."""

    def __init__(self, **own: Tensor) -> None:
        self.own = own

    def log_prob(self, x: Tensor) -> Tensor:
        mu, theta = self.own["mu"], self.own["theta"]
        return log_zinb(x, mu, theta, self.own["zi_logits"]) if "zi_logits" in self.own else log_nb(x, mu, theta)


def cells() -> dict[str, Any]:
    scores = leaf(torch.randn(6, 9))
    own = {"px_r": leaf(torch.randn(9)), "px_dropout": leaf(torch.randn(6, 9)), "kl": leaf(torch.rand(6))}
    given = {"x": torch.poisson(2 * torch.rand(6, 9)), "library": torch.full((6, 1), 3.0)}
    return {"px_scores": scores, "px_scale": torch.softmax(scores, 1), **own, **given, "NegativeBinomial": Theirs,
            "ZeroInflatedNegativeBinomial": Theirs}  # fmt: skip


def graph() -> dict[str, Any]:
    labels = (torch.rand(6, 6) < 0.3).float()
    numbers = {"n": 6, "norm": 0.7, "pos_weight": torch.tensor(3.0)}
    leaves = {"preds": leaf(torch.randn(6, 6)), "mu": leaf(torch.randn(6, 3)), "logstd": leaf(torch.randn(6, 3))}
    edges = {"pos": leaf(torch.randn(8)), "neg": leaf(torch.randn(7))}
    return {**leaves, **edges, **numbers, "labels": labels}


def latent() -> dict[str, Any]:
    return {"mean": leaf(torch.randn(6, 3)), "logvar": leaf(30 * torch.randn(6, 3))}


def networks() -> dict[str, Any]:
    return {"encoder": nn.Linear(9, 6), "decoder": nn.Linear(3, 9), "x": torch.rand(6, 9)}


def pythae() -> dict[str, Any]:
    given = images()
    return {**given, "log_var": given.pop("logvar")}


def table() -> dict[str, Any]:
    numbers, spans = [0, 4], [(1, 4), (5, 7)]
    three, two = (F.one_hot(torch.randint(0, n, (6,)), n).float() for n in (3, 2))
    x = torch.cat([torch.rand(6, 1), three, torch.rand(6, 1), two], 1)
    own = {"recon_x": leaf(torch.randn(6, 7)), "sigmas": leaf(torch.rand(7) + 0.1), "mu": leaf(torch.randn(6, 3))}
    more = {"numbers": numbers, "spans": spans, "factor": 2, "cross_entropy": F.cross_entropy}
    return {**own, "logvar": leaf(torch.randn(6, 3)), "x": x, **more}


SETTINGS = {
    "pytorch/examples": [images],
    "In the loss of a model": [cells, cells],
    "diffusers": [latent],
    "PyTorch Geometric and gae": [graph, graph, graph],
    "Lightning": [networks],
    "pythae": [pythae],
    "CTGAN": [table],
}
UNTESTED = {"One line before training"}  # test_integrations.py has it, and examples/scvi_patch.py
RESULTS = {("diffusers", 0): ("z", "kl"), ("PyTorch Geometric and gae", 0): ("z", "kl_loss")}  # the others: a loss


def blocks() -> list[tuple[str, int, str]]:
    """(heading, place below it, block)"""
    sections = re.split(r"^#+ (.+)$", MIGRATING, flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return [
        (heading, i, block)
        for heading, text in pairs
        for i, block in enumerate(re.findall(r"```diff\n(.*?)```", text, re.DOTALL))
    ]


def results(lines: list[str], given: dict[str, Any], wanted: tuple[str, ...]) -> list[Tensor]:
    """What they return, or what they have under these names; of one noise."""
    source = re.sub(r"^return ", "returned = ", "\n".join(lines), flags=re.MULTILINE)
    noise = torch.Generator().manual_seed(1)
    theirs = SimpleNamespace(**{**vars(torch), "randn_like": lambda x: torch.randn(x.shape, generator=noise)})

    def drawn(*args: Any, **rest: Any) -> Any:
        return pyvae.reparameterize_kl(*args, eps=theirs.randn_like(args[0]), **rest)

    ours = SimpleNamespace(**{**vars(pyvae), "reparameterize_kl": drawn})
    names = {"torch": theirs, "pyvae": ours, "F": F, **given}
    names["DiagonalGaussianDistribution"] = lambda moments: Clamped(moments, theirs)
    exec(source, names)
    found = names["returned"] if "returned" in names else [names[each] for each in wanted]
    return [*found] if isinstance(found, (tuple, list)) else [found]


class Clamped:
    """diffusers' posterior, by its formula; examples/diffusers_vae.py compares with theirs."""

    def __init__(self, moments: Tensor, torch: Any) -> None:
        self.mean, logvar = moments.chunk(2, 1)
        self.logvar, self.torch = logvar.clamp(-30, 20), torch

    def sample(self) -> Tensor:
        return self.mean + (self.logvar / 2).exp() * self.torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).sum(1)


@pytest.mark.parametrize(("heading", "place", "block"), blocks(), ids=lambda x: str(x)[:30])
def test_the_new_lines_give_what_the_old_ones_gave(heading: str, place: int, block: str) -> None:
    if heading in UNTESTED:
        assert "pyvae.integrations.scvi.patch()" in block
        return
    torch.manual_seed(0)
    given = SETTINGS[heading][place]()
    old, new = ([line[1:] for line in block.splitlines() if line[0] in marks] for marks in ("- ", "+ "))
    wanted = RESULTS.get((heading, place), ("loss",))
    want, got = (results(lines, given, wanted) for lines in (old, new))
    modules = [given[each] for each in ("encoder", "decoder") if each in given]
    leaves = [x for x in given.values() if isinstance(x, Tensor) and x.is_leaf and x.requires_grad]
    leaves += [parameter for module in modules for parameter in module.parameters()]
    for mine, theirs in zip(got, want, strict=True):
        assert_whole(mine, theirs)
        gradients = (
            torch.autograd.grad(out.sum(), leaves, retain_graph=True, allow_unused=True) for out in (mine, theirs)
        )
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert_whole(one, other)
