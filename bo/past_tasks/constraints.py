r"""What past studies taught of a constraint: how probable it is that a point meets it.

A constraint is a number that is violated above zero. Its past values are learned from as objectives are, so where a
study violates it elsewhere than past studies did, the past loses its say by evidence: see `bayesmeta.gp.transfer`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.fields import TensorFields
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.gp.transfer import transfer_hypotheses
from bo.single_study.feasibility import LEAST, comparable, unit_of
from bo.single_study.process import some_rows
from bo.values import Value

__all__ = ["PastConstraint", "all_met", "constraints_of", "learn_constraints", "require_of_rows", "worst_unless"]

MAX_ROWS = 64  # of a study, those nearest to the boundary first


@dataclass(frozen=True, eq=False)
class PastConstraint(TensorFields):
    """A prior over one constraint of one search space.

    Args:
        functions: hypotheses about its values as functions on the unit cube, in the scale of
            `bo.single_study.feasibility.comparable`.
        unit: the median size of its past values.
    """

    functions: Any
    unit: Float[Tensor, ""]

    @classmethod
    def learn(cls, x: Float[Tensor, "tasks n d"], values: Float[Tensor, "tasks n"]) -> "PastConstraint | None":
        """From the values in past tasks; None where none was violated, or fewer than two tasks have any.

        Args:
            x: points of the unit cube.
            values: at those, NaN where there is none.
        """
        known = ~values.isnan()
        if int(known.any(-1).sum()) < 2 or not bool((values > 0).any()):
            return None
        unit = unit_of(values[known])
        tasks = Data(x, comparable(values.masked_fill(~known, 0.0), unit), known)[known.any(-1)]
        return cls(transfer_hypotheses(GaussianProcess.initial(tasks).fit(tasks)), unit)

    def chance(self, x: Float[Tensor, "n d"], values: Float[Tensor, " n"]) -> Value:
        """The probability that points meet it, given its values at the rows of a study."""
        functions = self.functions
        if len(x):
            y = comparable(values, self.unit)
            kept = some_rows(-y.abs(), MAX_ROWS)
            functions = functions.condition(Data.of(x[kept], y[kept]))
        functions = functions.leading()

        def met(points: Tensor) -> Tensor:
            probability = functions.marginal(points).expectation(_below_zero)
            return probability.clamp(min=LEAST)

        return met


def learn_constraints(
    x: Float[Tensor, "tasks n d"], values: Mapping[str, Float[Tensor, "tasks n"]]
) -> dict[str, PastConstraint]:
    """What is known of each constraint, by its name, of those of which there is anything to know.

    Args:
        x: encoded configurations.
        values: of each constraint at those, NaN where a trial had none.
    """
    found = {name: PastConstraint.learn(x, each) for name, each in values.items()}
    return {name: each for name, each in found.items() if each is not None}


def constraints_of(tasks: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Float[Tensor, "tasks n"]]:
    """For each constraint that some trial had, its value at each row of each task; NaN where there is none."""
    names = dict.fromkeys(name for rows in tasks for row in rows for name in row)
    most = max(map(len, tasks))
    return {
        name: torch.tensor(
            [[row.get(name, math.nan) for row in rows] + [math.nan] * (most - len(rows)) for rows in tasks],
            dtype=torch.float64,
        )
        for name in names
    }


def require_of_rows(constraints: Any, tasks: Data) -> dict[str, Float[Tensor, "tasks n"]]:
    """Constraints by name, in float64.

    Raises:
        TypeError: there are no names, or something has no numbers.
        ValueError: a constraint has no value at some row.
    """
    if not isinstance(constraints, Mapping):
        raise TypeError(f"constraints must be values by name, such as {{'memory': ...}}; got {constraints!r:.200}")
    found = {}
    for name, values in constraints.items():
        try:
            found[name] = torch.as_tensor(values, dtype=torch.float64, device=tasks.y.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"constraint {name!r} must be numbers, one for each row: {error}") from None
        if found[name].shape != tasks.mask.shape:
            raise ValueError(
                f"constraint {name!r} must have a value for each row, shape {tuple(tasks.mask.shape)}; got "
                f"{tuple(found[name].shape)}. NaN stands for a value that is not known"
            )
    return found


def all_met(constraints: Mapping[str, Tensor], tasks: Data) -> Bool[Tensor, "tasks n"]:
    """Which rows violate no constraint."""
    met = torch.ones_like(tasks.mask)
    for values in constraints.values():
        met &= ~(values > 0)
    return met


def worst_unless(met: Bool[Tensor, "tasks n"], tasks: Data) -> Float[Tensor, "tasks n"]:
    """The targets, more being better; that of a row which violates a constraint is the worst of its task."""
    worst = tasks.y.masked_fill(~tasks.mask, torch.inf).amin(-1, keepdim=True)
    return torch.where(met | ~tasks.mask, tasks.y, worst)


def _below_zero(f: Distribution) -> Tensor:
    """Of a normal, or a mixture of normals to any depth."""
    if isinstance(f, MixtureDistribution):
        return f.expectation(_below_zero)
    return torch.special.ndtr(-f.mean / f.stddev)
