"""Is a posterior as sure as it should be? Simulation-based calibration."""

from collections.abc import Callable

from torch import Generator, Tensor

from bayesmeta.data import Data
from bayesmeta.protocol import Functions, Posterior
from bayesmeta.random import seeded

__all__ = ["sbc_ranks"]


def _values(functions: Functions, x: Tensor) -> Tensor:
    return functions(x)


def sbc_ranks(
    prior: Posterior,
    x: Tensor,
    *,
    num_tasks: int,
    num_draws: int,
    quantity: Callable[[Functions, Tensor], Tensor] = _values,
    generator: Generator | None = None,
) -> Tensor:
    """Ranks of the truth among posterior draws, over tasks simulated from `prior`, all at once.

    Each task draws a function, then rows of it at `x`; the posterior after these rows draws functions again. Where
    `condition` and `sample` are right, the rank of the true quantity is uniform on 0 to `num_draws`.

    Args:
        prior: a prior without batch.
        x: `(n, d)`, the inputs of every task's rows; `(n, 0)` for families without inputs.
        quantity: what is ranked, of a bundle of draws at x: f(x) unless given, and any tensor led by the axis of draws.

    Returns:
        Whole numbers `(num_tasks, ...)`, the rest being the shape of `quantity`: `(n, *event)` for f(x).

    Raises:
        ValueError: the prior has a batch.

    Source: Talts et al., Validating Bayesian inference algorithms with simulation-based calibration (2018).
    """
    if prior.batch_shape:
        raise ValueError(f"sbc_ranks simulates tasks of one prior; got batch_shape {tuple(prior.batch_shape)}")
    truths = prior.sample(num_tasks, generator=generator)
    with seeded(generator):
        y = truths.predict(x).sample()
    tasks = Data.of(x.expand(num_tasks, *x.shape), y, event_dim=len(prior.event_shape))
    draws = prior.condition(tasks).sample(num_draws, generator=generator)
    return (quantity(draws, tasks.x) < quantity(truths, x)).sum(0)
