"""A sampler that is held to the laws, and the studies that it is asked in."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

__all__ = ["MIN_CONFIGURATIONS", "Case"]

MIN_CONFIGURATIONS = 24  # of a space: more than there are trials in the study of a law


@dataclass(frozen=True, eq=False)
class Case:
    """A sampler of one search space.

    Args:
        sampler: from a seed, such as `lambda seed: MetaSampler(TuningPrior(space, "minimize", suggester), seed=seed)`.
        distributions: of the parameters.
        direction: of studies.
        seed: that is added to all seeds.
        exempt: names of laws that should not hold.

    Raises:
        ValueError: the space has fewer than `MIN_CONFIGURATIONS` configurations.
    """

    sampler: Callable[[int], BaseSampler]
    distributions: Mapping[str, BaseDistribution]
    direction: Literal["minimize", "maximize"] = "minimize"
    seed: int = 0
    exempt: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        num = math.prod(_num_values(distribution) for distribution in self.distributions.values())
        if num < MIN_CONFIGURATIONS:
            raise ValueError(
                f"the laws try {MIN_CONFIGURATIONS} configurations that differ; this space has {num:.0f}. Give one "
                "with more choices, or a parameter of real numbers"
            )

    def study(self, number: int = 0, storage: Any = None) -> optuna.Study:
        """A new study, or the one that a storage has, by a sampler with a seed of this number."""
        return optuna.create_study(
            direction=self.direction,
            sampler=self.sampler(self.seed + number),
            storage=storage,
            study_name="of the laws",
            load_if_exists=True,
        )

    def objective(self, params: Mapping[str, Any]) -> float:
        """Best in the middle of each range, and at the first choice of each category."""
        distances = [_distance(self.distributions[name], value) for name, value in params.items()]
        total = math.fsum(each**2 for each in distances)
        return total if self.direction == "minimize" else -total

    def run(self, study: optuna.Study, num: int) -> list[dict[str, Any]]:
        """The parameters of as many trials, each evaluated before the next."""
        taken = []
        for _ in range(num):
            trial = study.ask(dict(self.distributions))
            study.tell(trial, self.objective(trial.params))
            taken.append(trial.params)
        return taken


def _num_values(distribution: BaseDistribution) -> float:
    """How many there are, infinity of real numbers."""
    if isinstance(distribution, CategoricalDistribution):
        return float(len(distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return 1.0
    return math.inf if distribution.step is None else (distribution.high - distribution.low) / distribution.step + 1.0


def _distance(distribution: BaseDistribution, value: Any) -> float:
    """From the best value, as a share of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return 0.5 * float(value != distribution.choices[0])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, at = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low) - 0.5 if high > low else 0.0
