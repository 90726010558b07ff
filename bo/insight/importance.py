r"""Which parameters matter: how much of the variance of a past task's function each explains alone.

Over uniform points of the search space, the share of a parameter $x_i$ is the first-order Sobol index
$$ S_i = \frac{\operatorname{Var}(E[f(x) \mid x_i])}{\operatorname{Var}(f(x))}, $$
with the mean given $x_i$ taken over those points of one Sobol design that agree on $x_i$: on its choice, or on one of
`NUM_BINS` parts of its range. What parameters explain only together is in none of the shares. Without conditions these
add up to one at most; the share of a category includes what it decides by ruling other parameters out.

Source: Sobol, Sensitivity estimates for nonlinear mathematical models (1993); means over the points of one design:
Plischke et al., Global sensitivity measures from given data (2013).
"""

from jaxtyping import Float, Int64
from torch import Generator, Tensor

from bo.priors.tuning_prior import TuningPrior

__all__ = ["parameter_importance"]

# fewer bins lose what a function does within one, and fewer points in each of them pass chance for a share
NUM_POINTS, NUM_BINS = 8192, 32
MISSING = -1.0


def parameter_importance(prior: TuningPrior) -> dict[str, Float[Tensor, " tasks"]]:
    """For each parameter with several values its share of the variance of each past function, from 0 to 1.

    Raises:
        ValueError: the prior does not hold the functions of past tasks.
    """
    if prior.past is None:
        raise ValueError("this prior does not say what past tasks did; learn one with TuningPrior.from_studies")
    x = prior.space.sobol(NUM_POINTS, generator=Generator().manual_seed(0))
    values = prior.past.each(x)
    # where a number lies in its range is the same as the column of the unit cube
    places = prior.space.slices()
    numbers = dict(zip(prior.space.names, prior.space.decode(x).unbind(-1), strict=True))
    return {
        name: _share(values, _bins(numbers[name], None if is_category else x[:, places[name].start]))
        for name, is_category in prior.space.is_category.items()
    }


def _bins(numbers: Float[Tensor, " n"], unit: Float[Tensor, " n"] | None) -> Int64[Tensor, " n"]:
    """The bin of each point, numbered from 0; points where the parameter is missing share one."""
    cells = numbers if unit is None else (NUM_BINS * unit).floor().clamp(max=NUM_BINS - 1)
    return cells.where(~numbers.isnan(), MISSING).unique(return_inverse=True)[1]


def _share(values: Float[Tensor, "n tasks"], bins: Int64[Tensor, " n"]) -> Float[Tensor, " tasks"]:
    """Variance between the means of bins, as a share of the whole; zero for a constant."""
    centred = values - values.mean(0)
    count = bins.bincount()[:, None]
    sums = centred.new_zeros(len(count), centred.shape[-1]).index_add(0, bins, centred)
    total = centred.square().sum(0)
    return (sums.square() / count).sum(0) / total.where(total > 0, 1.0)
