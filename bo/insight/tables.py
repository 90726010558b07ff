"""Tables of what a saved prior holds, as `bayesmeta show` prints them."""

from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from bayesmeta.data.rows import Data
from bo.acquisition.schedule import Turns
from bo.acquisition.suggester import HasPosterior
from bo.insight.resemblance import IN_PART, KERNEL, NOTHING, WHOLE, resemblance
from bo.priors.tuning_prior import TuningPrior
from bo.samplers.first_tries import first_tries

__all__ = ["expectations", "hyperparameters", "in_words", "likeness"]

NUM_FIRST = 3  # configurations listed


def expectations(prior: TuningPrior) -> Table:
    """The space, and the configurations that the prior would try first."""
    points = first_tries(prior, NUM_FIRST)
    table = Table(title="What it would try first")
    # folded where there is no room, and never cut: names may differ in their last letters alone
    table.add_column("parameter", overflow="fold")
    table.add_column("values", overflow="fold")
    for rank in range(NUM_FIRST):
        table.add_column(f"choice {rank + 1}", justify="right", overflow="fold")
    choices = prior.space.from_unit(points)
    for name, distribution in prior.space.distributions.items():
        table.add_row(name, in_words(distribution), *[_number(choice.get(name, "")) for choice in choices])
    if not isinstance(prior.suggester, HasPosterior):
        return table
    table.add_section()
    what = (
        "expected normal score, more is better (0 is the median of the past's rows)"
        if prior.scores
        else "expected objective"
    )
    table.add_row("", what, *[_number(value) for value in prior.functions.marginal(points).mean.tolist()])
    return table


def likeness(prior: TuningPrior) -> Table | None:
    """What a new study is like before its first trial, in the words of `bayesmeta plot`; None if it cannot tell."""
    if not isinstance(prior.suggester, Turns):
        return None
    none = torch.empty(0, prior.space.num_columns, dtype=torch.float64)
    found = resemblance(prior, Data.of(none, none.sum(-1)))
    table = Table("a new study is", title="Before the first trial")
    table.add_column("probability", justify="right")
    table.add_row(WHOLE, f"{found.whole:.3f}")
    table.add_row(IN_PART, f"{float(found.tasks.sum()):.3f}")
    table.add_row(KERNEL, f"{found.kernel:.3f}")
    table.add_row(NOTHING, f"{found.nothing:.3f}")
    return table


def hyperparameters(prior: Any) -> Table:
    """The tensors of a prior by name, and of those within it."""
    table = Table(title="Hyperparameters")
    for title in ("field", "shape", "dtype"):
        table.add_column(title, overflow="fold")

    def add(value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            table.add_row(name, str(tuple(value.shape)), str(value.dtype).removeprefix("torch."))
        elif hasattr(value, "state_dict"):
            for inner, item in value.state_dict().items():
                add(item, f"{name}.{inner}" if name else inner)

    add(prior, "")
    return table


def in_words(distribution: Any) -> str:
    """The values of a parameter in words."""
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    step = getattr(distribution, "step", None)
    kind = "whole numbers, " if isinstance(distribution.low, int) else ""
    steps = f", step {_number(step)}" if step and step != 1 else ""
    log = ", log scale" if distribution.log else ""
    return f"{kind}{_number(distribution.low)} to {_number(distribution.high)}{steps}{log}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
