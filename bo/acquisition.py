"""Expected improvement under any predictive distribution that is normal, or a mixture of normals to any depth.

BoTorch's analytic acquisitions take one Gaussian; a mixture of hypotheses has several, and its expected improvement is
the weighted mean of theirs.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.hierarchy import MixtureDistribution

__all__ = ["expected_improvement"]


def expected_improvement(f: Distribution, best: float | Tensor, *, maximize: bool = True) -> Tensor:
    """E[max(f - best, 0)], or E[max(best - f, 0)], of the shape of the batch of `f`.

    Raises:
        TypeError: `f` is neither normal nor a mixture.
    """
    if isinstance(f, MixtureDistribution):
        return f.expectation(lambda each: expected_improvement(each, best, maximize=maximize))
    if not isinstance(f, Normal):
        raise TypeError(f"expected improvement needs a normal or a mixture of normals; got {type(f).__name__}")
    gain = f.mean - best if maximize else best - f.mean
    u = gain / f.stddev
    density = (-0.5 * u.square()).exp() / math.sqrt(2.0 * math.pi)
    return gain * torch.special.ndtr(u) + f.stddev * density
