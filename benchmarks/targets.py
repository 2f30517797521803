"""What rows are called in words, and the targets: what was set out for, and how the rows are judged by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf, isnan
from operator import attrgetter, itemgetter
from typing import NamedTuple

from . import Row
from .cases import ONE_LARGE, OWN_GRAPHS

CALLS = {
    "loss": "`elbo_loss(recon, x, mu, logvar)`",
    "loss_given_kl": "`elbo_loss(recon, x, kl=kl)`",
    "sample": "`reparameterize`",
    "sample_kl": "`reparameterize_kl`",
}
COUNTS = {"nb": "`NegativeBinomial`", "zinb": "`ZeroInflatedNegativeBinomial`"}
PARAMETERS = {  # likelihoods, and the shape of their parameters
    "gaussian": '`"gaussian"`',
    "gaussian_scalar": "`Gaussian`, logvar ()",
    "gaussian_features": "`Gaussian`, logvar (D,)",
    "laplace_features": "`Laplace`, logscale (D,)",
    "poisson": '`"poisson"`',
    "negative_binomial": "`NegativeBinomial`, log theta (D,)",
    "bernoulli_logits": '`"bernoulli_logits"`',
    "continuous_bernoulli_logits": '`"continuous_bernoulli_logits"`',
}
OF_COUNTS = ("poisson", "negative_binomial")  # of these
SCVI = {
    "scvi_zinb": "`SCVI`, zero-inflated",
    "scvi_nb": "`SCVI`, negative binomial",
    "scanvi": "`SCANVI`",
    "totalvi": "`TOTALVI`, 100 proteins",
    "autozi": "`AUTOZI`",
}
MIXTURES = {
    "mixture": "`mixture_log_prob`",
    "mixture_elements": '`mixture_log_prob(reduction="elements")`',
    "step_scvi_mixture": "step of an scVI with a mixture as prior",
    "step_beta_tcvae": "step of a β-TCVAE",
}
OF_MIXTURES = {"eager": "torch.distributions, or plain", "compiled": "torch.compile", "eager_products": "two products"}
PASSES = {
    "objective_forward": "objective forward, with its gradient",
    "sampler_backward": "sampler backward",
    "sampler_forward": "sampler forward",
}
STEPS = {
    "step_mlp": "MLP",
    "step_conv": "convolutional",
    "step_latent_diffusion": "latent-diffusion-sized",
    "step_bayes": "Bayes by backprop, without the optimizer",
}
COMPETITORS = {
    "eager": "eager",
    "eager_probabilities": "eager probabilities",
    "compiled": "torch.compile",
    "compiled_autotuned": "max-autotune-no-cudagraphs",
    "compiled_reduce_overhead": "reduce-overhead",
    "compiled_max_autotune": "max-autotune",
    "fused_compiled": "pyvae in torch.compile",
    "model_alone": "model alone",
    "copy": "copy",
}
WITH_PARAMETERS = {  # their competitors; of the means over the batch also what × is of
    "eager": "eager",
    "eager_function": "`F.mse_loss`",
    "fused_none": '`"none"`, then mean: × of `"sum"` / B',
    "eager_none": 'eager so: × of `"none"`, then mean',
}
PLAIN = {name: label for name, label in COMPETITORS.items() if name not in OWN_GRAPHS}
IN_GRAPH = {name if name in OWN_GRAPHS else f"{name}_graph": label for name, label in COMPETITORS.items()}

Where = Callable[[Row], bool]


def elements(row: Row) -> int:
    """Of what the row's kernel works on: the latent of a sampler, else recon."""
    return (row.batch or 0) * ((row.latent if row.what.startswith("sampl") else row.features) or 0)


def is_float32(row: Row) -> bool:
    return row.dtype in (None, "float32")


def at(batch: int, features: int) -> Where:
    return lambda row: is_float32(row) and (row.batch, row.features) == (batch, features)


small = at(128, 784)


def where_measured(row: Row) -> str:
    return row.shape if is_float32(row) else f"{row.shape}, {row.dtype}"


def at_least(size: int) -> Where:
    return lambda row: is_float32(row) and elements(row) >= size


class Target(NamedTuple):
    what: str
    target: str
    judge: Callable[[Sequence[Row]], tuple[str, bool]]  # what was measured, and whether it is enough; or a LookupError


def compared(rows: Iterable[Row], what: str, competitor: str) -> list[Row]:
    """The matching rows that have a ratio to pyvae's, smallest first; LookupError if the run has none."""
    found = [row for row in rows if (row.what, row.competitor) == (what, competitor) and row.ratio_to_fused]
    if not found:
        raise LookupError(what)
    return sorted(found, key=attrgetter("ratio_to_fused"))


def at_most(label: str, target: str, what: str, limit: float, form: str, stage: str | None = None) -> Target:
    """Judged by the largest value of pyvae's own rows, the probabilities' too where there are any."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        found = [row for row in rows if (row.what, row.stage) == (what, stage)]
        own = [row.value for row in found if row.competitor.startswith("fused")]
        if not own or any(map(isnan, own)):
            raise LookupError(what)
        return form.format(max(own)), max(own) <= limit

    return Target(label, target, judge)


def speed_up(what: str, competitor: str, least: float, where: Where | None = None, label: str = "") -> Target:
    """Judged by the smallest ratio of the shapes that `where` names, all of them if it is not given."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        found = compared(filter(where or bool, rows), what, competitor)
        worst, most = found[0].ratio_to_fused, found[-1].ratio_to_fused
        to_most = f" to {most:.1f}×" if len(found) > 1 else ""
        return f"{worst:.{1 if worst >= 1 else 2}f}× (at {where_measured(found[0])}){to_most}", worst >= least

    name = f"{(CALLS | COUNTS | PARAMETERS)[what]} forward + backward, against {(PLAIN | IN_GRAPH)[competitor]}{label}"
    return Target(name, f"≥ {least:g}×", judge)


def copy_share(what: str, least: float, label: str, copy: str, size: int = 0) -> Target:
    """Judged by the smallest share at float32 arrays of that size and above."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        row = compared(filter(at_least(size), rows), what, "copy")[0]
        share, speed = row.ratio_to_fused, row.gb_per_s
        return f"{share:.0%} ({share * speed:,.1f} of {speed:,.1f} GB/s)", share >= least

    return Target(label, f"≥ {100 * least:.0f} % of a {copy}", judge)


def call_overhead(call: str, competitor: str, most: float) -> Target:
    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        own, bce = (compared(rows, "overhead", name)[0].value for name in (competitor, "bce_alone"))
        return f"{own:.1f} against {bce:.1f} µs", own <= most * bce

    times = "" if most == 1 else f"{most:g} × "
    return Target(f"{call} forward + backward, 1×64", f"≤ {times}`binary_cross_entropy_with_logits` alone", judge)


def of_means(
    other: str, competitor: str, where: Where = bool, *, least: float | None = None, most: float | None = None
) -> Target:
    """Judged over all likelihoods, by the smallest or by the largest ratio of the competitor's rows."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        found = [row for row in rows if row.what in PARAMETERS and row.competitor == competitor and where(row)]
        found = [row for row in found if row.ratio_to_fused]
        if not found:
            raise LookupError(competitor)
        row = (max if least is None else min)(found, key=attrgetter("ratio_to_fused"))
        reached = (least or 0) <= row.ratio_to_fused <= (most or inf)
        return f"{row.ratio_to_fused:.2f}× ({PARAMETERS[row.what]} at {where_measured(row)})", reached

    target = f"≤ {most:g} × its time" if least is None else f"≥ {least:g}×"
    return Target(f"mean over the batch: losses per sample, then their mean, against {other}", target, judge)


def time_of(what: str, other: str, most: float) -> Target:
    """Judged by the largest ratio of pyvae's own times for two likelihoods, over shapes and types."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        own = [row for row in rows if row.competitor == "fused"]
        others = {(row.shape, row.dtype): row.value for row in own if row.what == other}
        pairs = [(row, others.get((row.shape, row.dtype))) for row in own if row.what == what]
        ratios = [(row.value / value, row) for row, value in pairs if value]
        if not ratios or any(isnan(ratio) for ratio, _ in ratios):
            raise LookupError(what)
        ratio, row = max(ratios, key=itemgetter(0))
        return f"{ratio:.2f}× (at {where_measured(row)})", ratio <= most

    label = f"{PARAMETERS[what]} forward + backward, against {PARAMETERS[other]}"
    return Target(label, f"≤ {most:g} × its time", judge)


ERRORS = (
    at_most("loss, any float32 size, against float64", "relative error ≤ 1e-6", "loss_error", 1e-6, "{:.1e}"),
    at_most("gradient against float64, tails included", "≤ 4 ulp", "gradient_error", 4, "{:.2f} ulp"),
    at_most("normal draw against exact Box–Muller", "≤ 4 ulp", "normal_error", 4, "{:.2f} ulp"),
)
SAMPLER = "memory beyond inputs, `reparameterize_kl`"
# A tenth of a buffer for what the peak of a process's memory is rounded to.
OVERHEAD_AND_MEMORY = (
    call_overhead("`elbo_loss(recon, x)`", "fused_reconstruction", 1),
    call_overhead(CALLS["loss"], "fused", 1.2),
    at_most("memory beyond inputs, `elbo_loss` with its gradient", "1 × recon", "loss_memory", 1.1, "{:.2f} × recon"),
    at_most(SAMPLER, "1 × z: no noise", "sample_kl_memory", 1.1, "{:.2f} × z"),
)
ARRAY, COPY = "one large array: objective forward with gradient", "three-stream copy"
STEP = "sampler + objective"
PARTS = ("forward", "backward")
TARGETS = {
    "cpu": (
        *ERRORS,
        speed_up("loss", "eager", 5),
        speed_up("loss", "eager_probabilities", 8),
        speed_up("loss", "compiled", 3),
        *(speed_up(what, other, 3) for what in ("sample", "sample_kl") for other in ("eager", "compiled")),
        copy_share("bandwidth", 0.8, ARRAY, COPY),
        copy_share("bandwidth_huge_pages", 0.8, f"{ARRAY}, the copy's output in huge pages as well", COPY),
        *OVERHEAD_AND_MEMORY,
        at_most("`import pyvae` beyond torch", "≤ 50 ms", "import", 50, "{:.0f} ms"),
    ),
    "cuda": (
        *ERRORS,
        *(speed_up("loss", name, 1.5, at_least(2**23), ", when large") for name in ("compiled", "compiled_autotuned")),
        *(speed_up("loss", name, 2, small, ", at 128×784") for name in ("compiled", "compiled_autotuned")),
        speed_up("loss", "eager", 4, small, ", at 128×784"),
        *(
            speed_up("loss", name, least, small, ", both in CUDA graphs, at 128×784")
            for name, least in (("compiled_graph", 2), ("compiled_reduce_overhead", 2), ("eager_graph", 4))
        ),
        *(
            copy_share(what, least, f"{PASSES[what]}, float32, at ≥ 2^27 elements", "copy of as many bytes", ONE_LARGE)
            for what, least in (("objective_forward", 0.9), ("sampler_backward", 0.9), ("sampler_forward", 0.8))
        ),
        *(at_most(f"launches, {STEP}, {stage}", "≤ 2", "launches", 2, "{:.0f}", stage) for stage in PARTS),
        *(at_most(f"waits of the host, {STEP}, {stage}", "none", "waits", 0, "{:.0f}", stage) for stage in PARTS),
        *OVERHEAD_AND_MEMORY,
        at_most(f"{SAMPLER} forward + backward", "3 × z: 2 gradients", "sample_kl_memory", 3.1, "{:.2f} × z", "both"),
    ),
}

LOGIT_ERRORS = {"logits_error": "value", "logits_gradient_error": "derivative by the logit"}
LOGIT_COMPETITORS = {
    "fused": "pyvae, bernoulli_logits",
    "eager": "F.binary_cross_entropy_with_logits",
    "eager_probabilities": "F.binary_cross_entropy of a sigmoid",
    "fused_probabilities": "pyvae, bernoulli of a sigmoid",
}

COUNT_ERRORS = {"nb_error": "value", "nb_theta_error": "derivative by log θ"}
COUNT_ERROR_TARGETS = tuple(
    at_most(f"{name}, θ 1e-2 … 1e8, against 50 digits", "relative error ≤ 1e-5", what, 1e-5, "{:.1e}")
    for what, name in COUNT_ERRORS.items()
)
# Counts with the softmax link, which have a place of their own.
GENES = at(128, 20000), ", at 128×20000"
COUNT_TARGETS = (
    *(
        speed_up(what, competitor, least, *GENES)
        for what in COUNTS
        for competitor, least in (("eager", 6), ("compiled", 4))
    ),
    *(
        at_most(f"memory beyond inputs, {COUNTS[what]}", target, f"{what}_memory", most, "{:.2f} × scores", "both")
        for what, target, most in (("nb", "1 × scores: 1 gradient", 1.1), ("zinb", "2 × scores: 2 gradients", 2.1))
    ),
)

# Likelihoods with parameters, which have a place of their own.
SUM = '`"sum"` / B'
PARAMETER_TARGETS = (
    *(speed_up(what, "eager", 1) for what in PARAMETERS),
    time_of("gaussian_scalar", "gaussian", 2),
    of_means("eager", "eager_none", least=1),
    of_means(
        f"{SUM}, counts and D ≥ 64", "fused_none", lambda row: row.what in OF_COUNTS or row.features >= 64, most=1.25
    ),
    of_means(f"{SUM}, the others", "fused_none", lambda row: row.what not in OF_COUNTS and row.features < 64, most=1.6),
)


def scvi_gain(what: str, genes: int, least: float) -> Target:
    """Of a step of scvi-tools' own training."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        (row,) = compared((row for row in rows if row.features == genes), what, "eager")
        return f"{row.ratio_to_fused:.2f}×", row.ratio_to_fused >= least

    return Target(f"{SCVI[what]}, {genes:,} genes, an epoch's wall time", f"≥ {least:g}×", judge)


SCVI_TARGETS = [
    scvi_gain(what, genes, least) for genes, least in ((2000, 1.55), (20000, 2.2)) for what in ("scvi_zinb", "scvi_nb")
]
SCVI_TARGETS += [
    at_most(f"{name}, loss of the same weights and noise", "≤ 1e-5 relative", f"{what}_loss", 1e-5, "{:.0e}")
    for what, name in SCVI.items()
]


def mixture_gain(what: str, competitor: str, least: float, components: int | None = None, most: int = 0) -> Target:
    """Judged by the smallest ratio, of that many components or of at most so many."""

    def judge(rows: Sequence[Row]) -> tuple[str, bool]:
        fits = [
            row
            for row in rows
            if components in (None, row.latent) and (not most or (row.latent is not None and row.latent <= most))
        ]
        worst = compared(fits, what, competitor)[0].ratio_to_fused
        return f"{worst:.1f}×", worst >= least

    label = f", {components} components" if components else f", up to {most} components" if most else ""
    return Target(f"{MIXTURES[what]}, against {OF_MIXTURES[competitor]}{label}", f"≥ {least:g}×", judge)


MIXTURE_TARGETS = [
    mixture_gain("mixture", "eager", 12),
    mixture_gain("mixture_elements", "eager", 12),
    mixture_gain("mixture", "eager_products", 1.5, most=50),
    mixture_gain("step_scvi_mixture", "eager", 3.5, components=20),
    mixture_gain("step_scvi_mixture", "eager", 5, components=50),
    mixture_gain("step_beta_tcvae", "eager", 3),
]
