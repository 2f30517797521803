"""pyvae: the fused ELBO for variational autoencoders in PyTorch.

z, kl = pyvae.reparameterize_kl(mu, logvar)      # encoder side: noise, sample and KL in one pass
loss = pyvae.elbo_loss(decoder(z), x, kl=kl)     # decoder side: likelihood, reduction and gradient in one pass
loss.backward()
"""

from . import reference
from ._arguments import ELBO
from ._extension import _C, build_info
from ._gradient import reference_gradient
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
from .modules import ELBOLoss
from .objective import elbo_loss, elbo_terms, reconstruction_loss

if _C is not None:
    _C.set_reference_gradient(reference_gradient)

__all__ = [
    "ELBO",
    "ELBOLoss",
    "Gaussian",
    "Laplace",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "__version__",
    "backend",
    "build_info",
    "elbo_loss",
    "elbo_terms",
    "kl_divergence",
    "reconstruction_loss",
    "reference",
    "reparameterize",
    "reparameterize_kl",
]
