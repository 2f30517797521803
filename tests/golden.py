"""The golden normals: a few hundred values that pin the noise for good, in tests/golden_normal.json.

``python tests/golden.py`` wrote the file, once, from the kernels, after every value had been found within NORMAL_ULP of
the exact transform. Writing it again would change every user's seeded results: that is a breaking release.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from noise_truth import normals, ulps
from tolerances import NORMAL_ULP

import pyvae

FILE = Path(__file__).parent / "golden_normal.json"
DTYPES = {"float32": torch.float32, "float64": torch.float64}

# (seed, row_offset, rows, features): odd widths, both signs, more than 32 bits of seed and of element index.
DRAWS = [
    (0, 0, 3, 20),
    (1, 0, 20, 1),
    (42, 7, 5, 5),
    (-1, 1, 4, 3),
    (2**63 + 12345, 3, 2, 17),
    (20141220, 2**33 + 1, 3, 7),
    (2**64 - 2, 10**15, 1, 31),
]


def draw(
    seed: int | torch.Tensor, rows: int, features: int, dtype: torch.dtype, row_offset: int = 0, device: str = "cpu"
) -> torch.Tensor:
    """The noise itself: a sample with mean 0 and standard deviation 1."""
    zeros = torch.zeros(rows, features, dtype=dtype, device=device)
    return pyvae.reparameterize(zeros, std=torch.ones_like(zeros), seed=seed, row_offset=row_offset)


def bits(values: torch.Tensor) -> list[str]:
    """Every value's bit pattern in hexadecimal."""
    raw = values.flatten().cpu().numpy()
    return [f"{int(word):0{2 * raw.itemsize}x}" for word in raw.view(np.uint32 if raw.itemsize == 4 else np.uint64)]


def main() -> None:
    """Writes all golden draws, each value checked against the exact transform."""
    golden: list[str] = []
    for (name, dtype), (seed, row_offset, rows, features) in itertools.product(DTYPES.items(), DRAWS):
        values = draw(seed, rows, features, dtype, row_offset)
        exact = normals(seed, row_offset * features, rows * features, dtype == torch.float64)
        worst = ulps(values.flatten().numpy(), exact).max()
        if worst > NORMAL_ULP:
            raise ValueError(f"{name} seed {seed}: {worst} ulp from the exact transform")
        shape = {"seed": seed, "row_offset": row_offset, "rows": rows, "features": features}
        golden.append(json.dumps({"dtype": name, **shape, "bits": bits(values)}))
    FILE.write_text("[\n" + ",\n".join(golden) + "\n]\n")


if __name__ == "__main__":
    main()
