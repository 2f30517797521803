"""How the pictures look: on a page that may be white or nearly black, and to eyes that may not tell red from green."""

from __future__ import annotations

from typing import Any

INK = "#7f7f7f"  # as far from white as from black
STYLE = {  # matplotlib's own settings
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.markersize": 6.0,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "savefig.transparent": True,
    "savefig.dpi": 150,
}

# By Okabe and Ito, "Color universal design" (2008), but for a lighter blue: each is in contrast with either page.
COLORS = {"fused": "#2f8fd8", "eager": "#d55e00", "eager_probabilities": "#cc79a7", "compiled": "#009e73"}
MARKERS = {"fused": "o", "eager": "s", "eager_probabilities": "D", "compiled": "^"}


def look(competitor: str) -> dict[str, Any]:
    """What a line of this competitor has in every picture."""
    return {"color": COLORS[competitor], "marker": MARKERS[competitor]}
