"""A GPU's CSV as Markdown: bandwidth, speed, whole steps, and every target with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from .judge import (
    ERRORS,
    MEMORY,
    NAMES,
    ONE_LARGE,
    OVERHEAD,
    Result,
    Target,
    at_most,
    judged,
    markdown,
    pick,
    ratio,
    speed_up,
)
from .rounds import LEFT_OUT
from .rows import Environment, Row

LARGE = 2**23  # elements of recon, from which on a loss counts as large

# Of one kernel each: the share of the copy's bandwidth that is asked for.
PASSES = {
    "objective_forward": ("objective forward, with its gradient", 0.9),
    "sampler_backward": ("sampler backward", 0.9),
    "sampler_forward": ("sampler forward", 0.8),
}
PLAIN = {
    "eager": "eager",
    "eager_probabilities": "eager probabilities",
    "compiled": "torch.compile",
    "compiled_autotuned": "max-autotune-no-cudagraphs",
}
IN_GRAPH = {
    "eager_graph": "eager",
    "eager_probabilities_graph": "eager probabilities",
    "compiled_graph": "torch.compile",
    "compiled_autotuned_graph": "max-autotune-no-cudagraphs",
    "compiled_reduce_overhead": "reduce-overhead",
    "compiled_max_autotune": "max-autotune",
}
STEPS = {"step_mlp": "MLP", "step_conv": "convolutional", "step_latent_diffusion": "latent-diffusion-sized"}
STEP_COMPETITORS = {"fused": "pyvae", "eager": "eager", "fused_compiled": "pyvae in torch.compile",
                    "compiled": "torch.compile", "model_alone": "model alone"}  # fmt: skip


def elements(row: Row) -> int:
    """Of what the row's kernel works on: the latent of a sampler, else recon."""
    return (row.batch or 0) * ((row.latent if row.what.startswith("sampl") else row.features) or 0)


def is_float32(row: Row) -> bool:
    return row.dtype in (None, "float32")


def by_type_and_size(row: Row) -> tuple[bool, str, int]:
    return not is_float32(row), row.dtype or "", elements(row)


def at_bandwidth(rows: Sequence[Row], what: str, competitor: str) -> list[Row]:
    return [row for row in rows if (row.what, row.competitor) == (what, competitor) and elements(row) >= ONE_LARGE]


def copy_share(what: str) -> Target:
    """Judged by the smallest share of the sizes that count."""
    name, least = PASSES[what]

    def judge(rows: Sequence[Row]) -> Result:
        copies = [row for row in at_bandwidth(rows, what, "copy") if is_float32(row)]
        shares = [(ratio(row), row) for row in copies if not isnan(row.value)]
        if not shares:
            raise LookupError(what)
        share, copy = min(shares, key=lambda pair: pair[0])
        at = f"of {(copy.gb_per_s or 0) / 1e3:.2f} TB/s at 2^{elements(copy).bit_length() - 1} elements"
        return Result(f"{share:.0%} {at}", share >= least)

    return Target(f"{name}, float32, at ≥ 2^27 elements", f"≥ {least:.0%} of a copy's bandwidth", judge)


def loss_speed(competitor: str, names: dict[str, str], least: float, large: bool) -> Target:
    graphs = ", both in CUDA graphs" if names is IN_GRAPH else ""
    label = f"against {names[competitor]}{graphs}, {'when large' if large else 'at 128×784'}"

    def counts(row: Row) -> bool:
        return is_float32(row) and (elements(row) >= LARGE if large else (row.batch, row.features) == (128, 784))

    return speed_up("loss", competitor, label, least, counts)


def counted(what: str, stage: str, limit: int) -> Target:
    def judge(rows: Sequence[Row]) -> Result:
        (row,) = pick(rows, what, "fused", stage)
        return Result(f"{row.value:.0f}", row.value <= limit)

    label = "waits of the host for the GPU" if what == "waits" else "launches"
    return Target(f"{label}, sampler + objective, {stage}", f"≤ {limit}" if limit else "none", judge)


TARGETS = (
    *ERRORS,
    *(copy_share(what) for what in PASSES),
    loss_speed("compiled", PLAIN, 1.5, large=True),
    loss_speed("compiled_autotuned", PLAIN, 1.5, large=True),
    loss_speed("compiled", PLAIN, 2, large=False),
    loss_speed("compiled_autotuned", PLAIN, 2, large=False),
    loss_speed("eager", PLAIN, 4, large=False),
    loss_speed("compiled_graph", IN_GRAPH, 2, large=False),
    loss_speed("compiled_reduce_overhead", IN_GRAPH, 2, large=False),
    loss_speed("eager_graph", IN_GRAPH, 4, large=False),
    *(counted("launches", stage, 2) for stage in ("forward", "backward")),
    *(counted("waits", stage, 0) for stage in ("forward", "backward")),
    *OVERHEAD,
    *MEMORY,
    at_most(
        "memory beyond inputs, `reparameterize_kl` forward + backward",
        "3 × z: z and two gradients",
        "sample_kl_memory",
        3.1,
        "{:.2f} × z",
        "both",
    ),
)


def time(row: Row | None) -> str:
    if row is None:
        return ""
    if isnan(row.value):
        return "left out" if row.note == LEFT_OUT else "failed"
    return f"{row.value:,.{1 if row.value < 100 else 0}f} µs"


def relative(row: Row | None) -> str:
    return time(row) + (f", {row.ratio_to_fused:.1f}×" if row and row.ratio_to_fused else "")


def bandwidths(rows: Sequence[Row]) -> str:
    body = []
    for what, (name, _) in PASSES.items():
        found = at_bandwidth(rows, what, "fused")
        for own in sorted(found, key=by_type_and_size):
            copies = [row for row in at_bandwidth(rows, what, "copy") if same_case(row, own)]
            copy = copies[0] if copies else None
            speeds = [f"{row.gb_per_s / 1e3:.2f}" if row and row.gb_per_s else "failed" for row in (own, copy)]
            share = f"{copy.ratio_to_fused:.0%}" if copy and copy.ratio_to_fused else ""
            size = f"2^{elements(own).bit_length() - 1}"
            body.append([name, own.dtype or "", size, time(own), *speeds, share])
    return markdown(["kernel", "types", "elements", "pyvae", "TB/s", "copy's TB/s", "share"], body) if body else ""


def same_case(row: Row, other: Row) -> bool:
    return (row.shape, row.dtype) == (other.shape, other.dtype)


def speeds(rows: Sequence[Row], names: dict[str, str], own: str, heading: str) -> str:
    body = []
    for what in ("loss", "sample_kl"):
        found = [row for row in rows if (row.what, row.competitor) == (what, own)]
        for fused in sorted(found, key=by_type_and_size):
            at = {row.competitor: row for row in rows if row.what == what and same_case(row, fused)}
            others = [relative(at.get(competitor)) for competitor in names]
            body.append([NAMES[what], fused.shape, fused.dtype or "", time(fused), *others])
    head = [heading, "B×D, latent L", "types", "pyvae", *names.values()]
    return markdown(head, body) if body else ""


def whole_steps(rows: Sequence[Row]) -> str:
    body = []
    for what, name in STEPS.items():
        for fused in (row for row in rows if (row.what, row.competitor) == (what, "fused")):
            at = {row.competitor: row for row in rows if row.what == what and same_case(row, fused)}
            for graph in ("", "_graph"):
                times = [relative(at.get(competitor + graph)) for competitor in STEP_COMPETITORS]
                body.append([name, fused.shape, fused.dtype or "", "yes" if graph else "no", *times])
    head = ["training step", "B×D, latent L", "types", "CUDA graph", *STEP_COMPETITORS.values()]
    return markdown(head, body) if body else ""


def failures(rows: Sequence[Row]) -> str:
    """Every row without a value that was not merely left out, and why."""
    failed = [row for row in rows if isnan(row.value) and row.note != LEFT_OUT]
    cases = (" ".join(filter(None, (row.what, row.batch and row.shape, row.dtype, row.competitor))) for row in failed)
    lines = [f"- {case}: {row.note}" for case, row in zip(cases, failed, strict=True)]
    return "\n".join(["Failed:", "", *lines]) if lines else ""


def render(rows: Sequence[Row], where: Environment) -> str:
    """What there are rows for; the targets wherever anything else than whole steps was measured."""
    head = (
        f"{where.processor} ({where.instruction_set}), driver {where.driver}, CUDA {where.cuda}, torch {where.torch}, "
        f"pyvae {where.pyvae} ({where.commit}). Medians; × is the time relative to pyvae on the same inputs."
    )
    parts: list[str] = [
        head,
        bandwidths(rows),
        speeds(rows, PLAIN, "fused", "forward + backward"),
        speeds(rows, IN_GRAPH, "fused_graph", "in CUDA graphs"),
        whole_steps(rows),
        judged(TARGETS, rows) if any(row.what not in STEPS for row in rows) else "",
        failures(rows),
    ]
    return "\n\n".join(filter(None, parts))
