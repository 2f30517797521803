"""torch.distributions' interface to the likelihoods: `log_prob` of each element by the fused kernels.

`Poisson`, `NegativeBinomial` and `ZeroInflatedNegativeBinomial` have the constructors of scvi-tools, of means; the last
two also those of `torch.distributions.NegativeBinomial`. `of` makes a distribution of what `elbo_loss` takes, of every
likelihood: to draw data, and to evaluate with the constants that losses leave out. All are subclasses of
`torch.distributions.Distribution`, for `Independent`, `MixtureSameFamily` and whatever else takes those.

Parameters may differ in type: where torch computes in float64 with them, so is this; `log_prob` of 16 bits is float32.
Samples have the parameters' type; in float16, whose numbers end at 65504, counts beyond are that number. `expand` keeps
what a subclass has set, as it is; one that expands it does so the way of torch's, with `_get_checked_instance`.
"""

from ._negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from ._of import of
from ._poisson import Poisson

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial", "of"]
