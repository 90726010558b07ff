"""What points promise: expected improvement under any predictive distribution that is normal, or a mixture of normals.

BoTorch's analytic acquisitions take one Gaussian; a mixture of hypotheses has several, to any depth, and its expected
improvement is the weighted mean of theirs.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.distributions.mixture import MixtureDistribution
from bo.acquisition.suggester import TaskModel
from bo.values import Expected, Value

__all__ = ["believing", "expected_improvement", "improvement", "log_expected_improvement"]


M = TypeVar("M", bound=TaskModel)


def believing(functions: M, rows: Data, pending: Tensor) -> tuple[M, Tensor]:
    """The posterior after rows and pending points, and the targets of both.

    Args:
        functions: a posterior in the units of `rows.y`.
        rows: what was evaluated.
        pending: points `(m, d)` whose values are not known, such as those of running trials. Each is believed to have
            the mean that `rows` give it, so that nothing else is expected there, and little is next to it.

    Source: kriging believer of Ginsbourger et al., Kriging is well-suited to parallelize optimization (2010).
    """
    y = rows.y
    if len(y):
        functions = functions.condition(rows)
    if len(pending):
        believed = functions.marginal(pending).mean
        functions = functions.condition(Data.of(pending, believed))
        y = torch.cat([y, believed])
    return functions, y


def improvement(functions: TaskModel, y: Tensor, *, maximize: bool, feasible: Tensor | None = None) -> Value:
    """How much points promise: their mean while nothing was tried, then their expected improvement.

    Args:
        functions: the posterior.
        y: what was evaluated or believed so far.
        maximize: whether more is better.
        feasible: which of them can be improved upon, where not all can; where none can, all points promise as much.
    """
    if not len(y):
        sign = 1.0 if maximize else -1.0
        return lambda x: sign * functions.marginal(x).mean
    y = y if feasible is None else y[feasible]
    if not len(y):
        return Expected(lambda x: x.new_ones(len(x)))
    best = y.max() if maximize else y.min()
    return Expected(lambda x: expected_improvement(functions.marginal(x), best, maximize=maximize))


def log_expected_improvement(f: Normal, best: float | Tensor) -> Tensor:
    r"""log E[max(f - best, 0)] of a normal, which tells points apart where the improvement itself is zero in floats.

    With $u$ the standardised gain, $\log(\varphi(u) + u \Phi(u))$; below -1 it goes through the scaled complementary
    error function, and far below that is a difference of equal numbers, which its series $u^{-2}$ replaces.

    Source: Ament et al., Unexpected improvements to expected improvement for Bayesian optimization (2023), appendix A.
    """
    u = (f.mean - best) / f.stddev
    near, low = u.clamp(min=-1.0), u.clamp(min=-1e4, max=-1.0)
    density = (-0.5 * near.square()).exp() / math.sqrt(2.0 * math.pi)
    above = (density + near * torch.special.ndtr(near)).log()
    ratio = low * torch.special.erfcx(-low / math.sqrt(2.0)) * math.sqrt(math.pi / 2.0)
    tail = torch.where(low > -1e3, torch.log1p(ratio.clamp(min=-1.0 + 1e-15)), -2.0 * low.neg().log())
    below = -0.5 * u.clamp(max=-1.0).square() - 0.5 * math.log(2.0 * math.pi) + tail
    return f.stddev.log() + torch.where(u > -1.0, above, below)


def expected_improvement(f: Distribution, best: float | Tensor, *, maximize: bool = True) -> Tensor:
    """E[max(f - best, 0)], or E[max(best - f, 0)], of the shape of the batch of `f`.

    Raises:
        TypeError: `f` is neither normal nor a mixture.
    """
    if isinstance(f, MixtureDistribution):
        return f.expectation(lambda each: expected_improvement(each, best, maximize=maximize))
    if not isinstance(f, Normal):
        raise TypeError(f"expected improvement needs a normal or a mixture of normals; got {type(f).__name__}")
    mean, sd = f.mean.double(), f.stddev.double()  # far below the best, two numbers nearly cancel
    gain = mean - best if maximize else best - mean
    u = gain / sd
    density = (-0.5 * u.square()).exp() / math.sqrt(2.0 * math.pi)
    return (gain * torch.special.ndtr(u) + sd * density).clamp(min=0.0).to(f.mean)
