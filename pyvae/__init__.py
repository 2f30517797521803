"""pyvae: the fused ELBO for variational autoencoders in PyTorch.

z, kl = pyvae.reparameterize_kl(mu, logvar)      # encoder side: noise, sample and KL in one pass
loss = pyvae.elbo_loss(decoder(z), x, kl=kl)     # decoder side: likelihood, reduction and gradient in one pass
loss.backward()
"""

from . import _gradient as _gradient  # what the backward passes of the kernels call
from . import distributions, reference
from ._arguments import ELBO
from ._extension import build_info
from ._route import backend
from ._version import __version__
from .latent import kl_divergence, reparameterize, reparameterize_kl
from .likelihoods import (
    Gaussian,
    Laplace,
    Multinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from .mixture import Mixture, gaussian_log_prob, mixture_log_prob
from .modules import ELBOLoss
from .objective import elbo_loss, elbo_terms, reconstruction_loss

__all__ = [
    "ELBO",
    "ELBOLoss",
    "Gaussian",
    "Laplace",
    "Mixture",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "__version__",
    "backend",
    "build_info",
    "distributions",
    "elbo_loss",
    "elbo_terms",
    "gaussian_log_prob",
    "kl_divergence",
    "mixture_log_prob",
    "reconstruction_loss",
    "reference",
    "reparameterize",
    "reparameterize_kl",
]

globals().pop("_C", None)  # to which Python binds the extension that it loaded


def __dir__() -> list[str]:
    """What is public, and not the modules that it comes from."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))})
