"""torch.distributions' interface to the likelihoods: `log_prob` of each element by the fused kernels.

`Poisson`, `NegativeBinomial` and `ZeroInflatedNegativeBinomial` have the constructors of scvi-tools, of means; the last
two also those of `torch.distributions.NegativeBinomial`. `of` makes a distribution of what `elbo_loss` takes, of every
likelihood: to draw data, and to evaluate with the constants that losses leave out. All are subclasses of
`torch.distributions.Distribution`, for `Independent`, `MixtureSameFamily` and whatever else takes those.
"""

from ._counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ._of import of

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial", "of"]
