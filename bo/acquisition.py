"""What points promise: expected improvement under any predictive distribution that is normal, or a mixture of normals.

BoTorch's analytic acquisitions take one Gaussian; a mixture of hypotheses has several, to any depth, and its expected
improvement is the weighted mean of theirs.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data import Data
from bayesmeta.hierarchy import MixtureDistribution
from bo.prior import TuningPrior
from bo.scores import normal_scores
from bo.search import Value

__all__ = ["acquisition", "expected_improvement"]


def acquisition(prior: TuningPrior, rows: Data, pending: Tensor | None = None) -> Value:
    """How much points promise: their mean while nothing was tried, then their expected improvement.

    Args:
        prior: what past tasks taught.
        rows: what was evaluated, `y` being the objective in its own units.
        pending: points `(m, d)` whose values are not known, such as those of running trials. Each is believed to have
            the mean that `rows` give it, so that nothing else is expected there, and little is next to it.

    Source: kriging believer of Ginsbourger et al., Kriging is well-suited to parallelize optimization (2010).
    """
    maximize = prior.scores or prior.direction == "maximize"
    functions = prior.functions if len(rows.y) >= 2 or prior.opening is None else prior.opening
    y = rows.y
    if prior.scores:
        y = normal_scores(y if prior.direction == "maximize" else -y, rows.mask)
    if len(y):
        functions = functions.condition(Data.of(rows.x, y))
    if pending is not None and len(pending):
        believed = functions.marginal(pending).mean
        functions = functions.condition(Data.of(pending, believed))
        y = torch.cat([y, believed])
    if not len(y):
        sign = 1.0 if maximize else -1.0
        return lambda x: sign * functions.marginal(x).mean
    best = y.max() if maximize else y.min()
    return lambda x: expected_improvement(functions.marginal(x), best, maximize=maximize)


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
