"""Every tolerance of the tests, each with the reason for its size. Nothing elsewhere states one."""

from __future__ import annotations

import numpy as np
import torch

# Loss, relative to the float64 formula, by the dtype of the result. float32 sums run in float32 within a block and in
# float64 across blocks: the contract allows 1e-6 at any size. float64 sums lose at most a few bits of its 53.
LOSS = {torch.float32: 1e-6, torch.float64: 1e-13}

# Gradient in units in the last place of its own dtype. float32: the contract's bound. float64: the truth is a float64
# formula itself and brings a few roundings of its own. 16 bit: computed in float32 and rounded once, so half a unit
# plus the float32 error, which is 4 * 2^-13 of a float16 unit.
GRADIENT_ULP = {torch.float64: 8.0, torch.float32: 4.0, torch.float16: 0.51, torch.bfloat16: 0.51}

# The same after an upstream gradient that is not a power of two: one more rounding.
SCALED_GRADIENT_ULP = {torch.float64: 9.0, torch.float32: 5.0, torch.float16: 0.51, torch.bfloat16: 0.51}

# The reference's gradients, which autograd derives operation by operation: some roundings more, and in 16 bits one
# where the contributions of z and of the KL meet. Of a float64 KL it is a difference, e^logvar - 1, in units of 1.
REFERENCE_GRADIENT_ULP = {torch.float64: 16.0, torch.float32: 8.0, torch.float16: 2.0, torch.bfloat16: 2.0}

# Kernels against pyvae.reference, or against torch's own float32 losses: both sides round and sum in float32.
FLOAT32_ROUNDING = 2e-6

# 16-bit results of two devices, as a whole: the float32 before may lie on either side of a rounding boundary, and then
# elements are a unit of bfloat16 apart.
SIXTEEN_BITS = 2.0**-8

# gradcheck and gradgradcheck in float64 use torch's defaults: central differences with step 1e-6 leave about 1e-5. They
# are compared along random directions, as in torch's own tests: each element has its part in each.
GRADCHECK = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3, "fast_mode": True}

# Two hundred training steps with one noise, relative to the loss: rounding differences grow along a trajectory, but a
# wrong gradient would part two of them within a few steps.
TRAJECTORY = 1e-3

# A normal against the exact Box-Muller transform of its uniforms, in units in the last place: the contract's bound. The
# cosine or sine brings at most 1.85, the radius 1.64, their product 0.5.
NORMAL_ULP = 4.0

# csrc/math against the exact function, in units in the last place: the last operations round once or twice. log1p_unit
# leaves out a float term that would gain it half a unit (2.05 at the worst of all floats), and the excess e^x - 1 - x
# loses up to three and a half bits to (2^n - 1) - x just beyond |x| = ln(2)/2: both are summands of losses, whose bound
# is relative to the sum.
ELEMENTARY_ULP = {
    "exp": 1.0,
    "exp_negative": 1.0,
    "expm1": 2.0,
    "log": 1.0,
    "log1p_unit": 2.1,
    "log1m_unit": 2.0,
    "exp_excess": 12.0,
}

# softplus(s) = max(s, 0) + log(1 + e^-|s|) and its slope through the public functions: exp, the polynomial of the
# logarithm and their product. What the kernels make of them has the bounds of every scale.
SOFTPLUS_ULP = {torch.float32: 2.5, torch.float64: 2.5}

# The likelihoods of counts in csrc/math, value and every derivative, relative to the exact one: the contract's bound
# for float32, wherever it is above COUNTS_BELOW. Where a derivative crosses zero, relative to the larger summand.
COUNTS = {np.float32: 1e-5, np.float64: 1e-11}
COUNTS_BELOW = 1e-30

# What they are made of (csrc/math/gamma.h), relative: the fit's error, in float 4e-7 where the function is 1/6, and
# some roundings.
GAMMA = {np.float32: 3e-6, np.float64: 1e-12}

# Two float64 formulas for one number, first and higher derivatives included: a few roundings on each side.
FLOAT64_ROUNDING = 1e-12

# pyvae.reference's float32 KL near the prior, and its slope, relative: computed in float64, where the terms that cancel
# are known to 1e-16 of |logvar|, which is at least 1e-8 in the test, and rounded to float32 once.
KL_REFERENCE_NEAR_PRIOR = {torch.float32: 1e-7}

# pyvae.reference's normals, computed in float64 and rounded once: half a unit of float32 and what float64 leaves. In
# float64 numpy's and torch's functions each bring about one unit, and the angle's rounding half of one.
REFERENCE_NORMAL_ULP = {torch.float32: 0.51, torch.float64: 4.0}

# A sample with the caller's eps, in units of the result type's eps times |mu| + |eps sigma|: sigma, product, sum round.
SAMPLE_EPS = 3.0

# The same against float64.
GIVEN_NOISE_EPS = 2.0

# Statistics of n normals, in standard deviations of what is estimated: one in 150,000 of all seeds passes 4.5, and the
# tests' seeds are fixed.
DEVIATIONS = 4.5

# Kolmogorov-Smirnov: as rare as DEVIATIONS, sqrt(n) D is above this for one in 130,000 of all seeds.
KOLMOGOROV = 2.5

# The KL from a prior of one's own and its slope, relative, down to log sigma^2 - log p^2 = 1e-7. In float32 that
# difference is exact, or rounded once where scales are divided; float64's truth knows it to 1e-16 of log p^2.
KL_NEAR_A_PRIOR = {torch.float32: 1e-6, torch.float64: 1e-6}

# Gradients of both of them as a whole, where elements are added up: they are of both signs. 16 bits round once.
PRIOR_GRADIENT_WHOLE = {torch.float64: 1e-15, torch.float32: 1e-6, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
REFERENCE_PRIOR_WHOLE = {**PRIOR_GRADIENT_WHOLE, torch.float32: FLOAT32_ROUNDING}

# Likelihoods with parameters or of counts, losses and gradients relative to their units (family_formulas.py): the
# contract's bound for float32; in 16 bits one rounding on top; of float64 what the truth's own differences of digammas
# and lgammas leave.
IN_UNITS = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2.0**-11 + 1e-5, torch.bfloat16: 2.0**-8 + 1e-5}

# pyvae.reference's count likelihoods, whose slopes autograd derives in float64: absolute, of the largest of the terms
# that cancel in them (x lgamma, log(theta + mean) ...), a few roundings.
REFERENCE_COUNTS = 1e-15

# Log densities against float64, relative to 1 + |value|: the contract's bound for float32, that of its issue for
# float64. The reference's sum over the features and over the components is torch's own.
DENSITY = {torch.float32: 1e-6, torch.float64: 1e-9}

# Their gradients as a whole. A component's share is e^(its term - the value): what float32 rounds off a term of some
# hundred nats is 1e-5 of the share. 16 bits round once more.
DENSITY_GRADIENT = {torch.float32: 5e-5, torch.float64: 1e-9, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
