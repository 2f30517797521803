"""Sphinx's settings. `make docs` builds the site into docs/_build/html, offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT)]

import gallery  # noqa: E402  (of _ext)
import included  # noqa: E402
import mathml  # noqa: E402
from pyvae import __version__  # noqa: E402

project = "pyvae"
author = "pyvae contributors"
copyright = "pyvae contributors, MIT licence"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
exclude_patterns = ["_build", "_ext", "_templates", "README.md"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions

# ---- pages -----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

html_theme = "furo"
html_title = f"pyvae {release}"
html_static_path = ["_static", *mathml.static_files(DOCS / "_build")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "monokai"

# ---- docstrings ------------------------------------------------------------------------------------------------------

default_role = "py:obj"  # a name in single backticks is a link where it can be one, and code elsewhere
highlight_language = "none"  # of blocks that name none: shell, mostly
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 70
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source", "Returns"]  # as they are: napoleon takes what is before a colon for a type
autosummary_generate = True

# The formulas of docs/mathematics.md by their labels, for the API's pages: each stands once.
_BLOCKS = re.findall(
    r"^```\{math\}\n:label: ([\w-]+)\n(.*?)^```", (DOCS / "mathematics.md").read_text(encoding="utf-8"), re.M | re.S
)
_TEX = {label: tex.strip() for label, tex in _BLOCKS}
_SHOWN = {
    "reparameterize": ["sample"],
    "reparameterize_kl": ["sample", "kl-prior"],
    "kl_divergence": ["kl", "kl-prior"],
    "gaussian_log_prob": ["gaussian-density"],
    "mixture_log_prob": ["mixture-density"],
    "Mixture": ["mixture-density"],
    "reconstruction_loss": ["reconstruction"],
    "elbo_loss": ["elbo"],
    "elbo_terms": ["elbo"],
    "ELBOLoss": ["elbo"],
    "Gaussian": ["gaussian-logvar"],
    "Laplace": ["laplace-logscale"],
    "Poisson": ["poisson"],
    "NegativeBinomial": ["negative-binomial"],
    "ZeroInflatedNegativeBinomial": ["zero-inflated"],
    "Multinomial": ["multinomial"],
}
autosummary_context = {
    "formulas": {f"pyvae.{name}": [_TEX[label] for label in labels] for name, labels in _SHOWN.items()},
    "examples": gallery.by_name(ROOT / "examples"),  # those that use a name
}

# ---- the examples, executed ------------------------------------------------------------------------------------------

sphinx_gallery_conf = gallery.settings(DOCS / "_build" / "examples")


def setup(app: object) -> None:
    gallery.stage(ROOT / "examples", DOCS / "_build" / "examples")
    included.stage(ROOT, DOCS / "_build" / "included")
