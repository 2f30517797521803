"""What rows are called, in words; and what they have in common."""

from __future__ import annotations

from . import Row

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
COMPETITORS = {
    "eager": "eager",
    "eager_function": "`F.mse_loss`",
    "eager_probabilities": "eager probabilities",
    "compiled": "torch.compile",
    "compiled_reduce_overhead": "reduce-overhead",
    "copy": "copy",
}
OWN_GRAPHS = ("compiled_reduce_overhead",)  # torch makes them, and copies the inputs into them
PLAIN = {name: label for name, label in COMPETITORS.items() if name not in OWN_GRAPHS}
IN_GRAPH = {name if name in OWN_GRAPHS else f"{name}_graph": label for name, label in COMPETITORS.items()}

LOGIT_ERRORS = {"logits_error": "value", "logits_gradient_error": "derivative by the logit"}
LOGIT_COMPETITORS = {
    "fused": "pyvae, bernoulli_logits",
    "eager": "F.binary_cross_entropy_with_logits",
    "eager_probabilities": "F.binary_cross_entropy of a sigmoid",
    "fused_probabilities": "pyvae, bernoulli of a sigmoid",
}

COUNT_ERRORS = {"nb_error": "value", "nb_theta_error": "derivative by log θ"}


def elements(row: Row) -> int:
    """Of what the row's kernel works on: the latent of a sampler, else recon."""
    return (row.batch or 0) * ((row.latent if row.what.startswith("sampl") else row.features) or 0)


def is_float32(row: Row) -> bool:
    return row.dtype in (None, "float32")
