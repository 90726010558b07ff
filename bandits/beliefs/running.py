"""How tasks run together on what is known of the prior that they share.

A belief of one's own says it by a method, `running(how)`. Hyperposteriors of `bayesmeta` cannot, as what they would
return is of this package, and so are told of here: no policy asks which of them it has.
"""

from functools import singledispatch
from typing import Any, Protocol, runtime_checkable

from bandits.beliefs.shared_mean import SharedMean
from bandits.beliefs.while_tasks_run import Running
from bayesmeta.hyperparameters.hyperposterior import Hyperposterior
from bayesmeta.online.protocol import InPlace
from bayesmeta.regression.linear_hyperposterior import LinearHyperposterior

__all__ = ["Runs", "running_together"]


@runtime_checkable
class Runs(Protocol):
    """A belief about the prior that tasks share."""

    def running(self, how: str) -> InPlace:
        """The prior of tasks that learn from each other in one of three ways, see `running_together`."""
        ...


@singledispatch
def running_together(belief: Any, how: str) -> InPlace:
    """The prior of tasks that learn from each other, which any policy takes.

    Args:
        belief: a `LinearHyperposterior`, a `Hyperposterior` that `fit` made, or whatever `Runs`; what the tasks show
            does not change it.
        how: "redraw", "marginal" or "keep", see `HierTS`, `AdaTS` and `MetaTS`.

    Raises:
        TypeError: `belief` is no hyperposterior.
    """
    if isinstance(belief, Runs):
        return belief.running(how)
    raise TypeError(
        f"belief must be a Hyperposterior or a LinearHyperposterior; got {type(belief).__name__}. "
        "Try Hyperposterior.fit(prior, tasks)"
    )


@running_together.register(LinearHyperposterior)
def _(belief: LinearHyperposterior, how: str) -> InPlace:
    return SharedMean(belief.task_prior, belief.cov, how)


@running_together.register(Hyperposterior)
def _(belief: Hyperposterior, how: str) -> InPlace:
    return Running.of(belief, how)
