"""Steps up an objective that is another random one each time: how networks learn.

AdamW, or SOAP, with a rate that rises at first and then falls along a cosine; gradients that are too long are
shortened; what is learned is the average over the last steps, of exponentially falling weight. Where a value or a
gradient is no number, the search goes back to the best that it knows, and on from there with half the rate.

A search can write down where it stands, and go on from there as if it had not stopped: to the last bit, where the
objective draws from the generator that it is given and from nothing else. One that has ended stays at its end.

Sources: Loshchilov and Hutter, Decoupled weight decay regularization (2019), SGDR (2017), for the cosine; Polyak and
Juditsky, Acceleration of stochastic approximation by averaging (1992).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.networks.learning.checkpoints import Checkpoint
from bayesmeta.networks.learning.soap import Soap
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["Ascent", "DivergedError", "DivergedWarning", "Steps"]

Values = dict[str, Tensor]
Objective = Callable[[Values], Tensor]
OWN = {"value", "average", "best"}  # what a checkpoint has of each tensor, beside the state of its optimiser
MAX_FALLS = 5  # times that a search may go back, each with half the rate


class DivergedWarning(BayesmetaWarning):
    """Learning met a value that is no number, and went back."""


class DivergedError(ValueError):
    """Learning met values that are no numbers again and again, and gave up."""


@dataclass(frozen=True)
class Steps:
    """How a search goes.

    Args:
        num: of all steps.
        rate: the highest one, for each tensor or for all.
        warm_up: share of the steps in which the rate rises.
        longest: of a gradient over all tensors, None for any.
        average: weight of what was learned before in the average of a step, zero for none: in the first steps less.
        decay: of weights, per unit of the rate.
        betas: of Adam.
        in_eigenbases: whether matrices take their steps by SOAP: fewer are needed, each costs a little more.
    """

    num: int
    rate: float | Mapping[str, float] = 1e-3
    warm_up: float = 0.0
    longest: float | None = None
    average: float = 0.0
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    in_eigenbases: bool = False

    def share(self, step: int) -> float:
        """Of the highest rate, in a step from zero on."""
        rising = self.warm_up * self.num
        if step < rising:
            return (step + 1.0) / rising
        return 0.5 * (1.0 + math.cos(math.pi * min((step - rising) / max(self.num - rising, 1.0), 1.0)))


class Ascent:
    """A search: `run` takes steps until they end or `enough` says so.

    Args:
        start: tensors by name, which stay as they are.
        objective: of such tensors, to be made as great as possible.
        steps: how it goes.
        generator: from which the objective draws; it is part of what a checkpoint holds.
        checkpoint: is written at every look, and read if there is something to go on from.

    Raises:
        ValueError: the checkpoint is of another search.
    """

    def __init__(
        self,
        start: Mapping[str, Tensor],
        objective: Objective,
        steps: Steps,
        *,
        generator: Generator | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.objective, self.steps, self.generator, self.checkpoint = objective, steps, generator, checkpoint
        self.step, self.num_falls, self.has_ended, self.value = 0, 0, False, math.nan
        self.values = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
        self.average = {name: value.detach().clone() for name, value in self.values.items()}
        self.best = self.learned()
        self.optimiser = self._optimiser()
        if checkpoint is not None:
            self._resume(checkpoint)

    def learned(self) -> Values:
        """Copies of what has been learned so far."""
        return {name: value.clone() for name, value in self.average.items()}

    def run(self, enough: Callable[[Values], bool], *, interval: int) -> Values:
        """Take steps, and ask `enough` of what was learned after every `interval` of them."""
        while self.step < self.steps.num and not self.has_ended:
            self._take_step()
            if self.step % interval == 0:
                learned = self.learned()
                self.has_ended = enough(learned)
                self.best = learned
                if self.checkpoint is not None:
                    self._write(self.checkpoint)
        return self.learned()

    def _take_step(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = group["highest"] * self.steps.share(self.step) * 0.5**self.num_falls
        self.optimiser.zero_grad()
        value = -self.objective(self.values)
        value.backward()
        longest = math.inf if self.steps.longest is None else self.steps.longest
        length = torch.nn.utils.clip_grad_norm_(list(self.values.values()), longest)
        self.step, self.value = self.step + 1, -value.item()
        if not bool(torch.isfinite(value) & torch.isfinite(length)):
            self._fall_back()
            return
        self.optimiser.step()
        # an average over the steps so far, until there are enough of them
        weight = 1.0 - min(self.steps.average, (self.step - 1.0) / (self.step + 9.0)) if self.steps.average else 1.0
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.values.values()), weight)

    def _fall_back(self) -> None:
        self.num_falls += 1
        if self.num_falls > MAX_FALLS:
            raise DivergedError(
                f"learning met values that are no numbers {self.num_falls} times, each time with half the rate. Are x "
                "or y of a task very far from those of the others? See what Data says of its ranges"
            )
        warn(
            f"a value or a gradient was no number in step {self.step}: learning goes back, and on with half the rate",
            DivergedWarning,
        )
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(self.best[name])
                self.average[name].copy_(self.best[name])
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.Optimizer:
        rate = self.steps.rate
        groups = [
            {"params": [value], "highest": rate[name] if isinstance(rate, Mapping) else rate}
            for name, value in self.values.items()
        ]
        settings: dict[str, Any] = {"lr": 0.0, "betas": self.steps.betas, "weight_decay": self.steps.decay}
        return Soap(groups, **settings) if self.steps.in_eigenbases else torch.optim.AdamW(groups, **settings)

    def _write(self, checkpoint: Checkpoint) -> None:
        tensors: dict[str, Tensor] = {}
        for name, value in self.values.items():
            state = self.optimiser.state.get(value, {})
            tensors |= {f"value.{name}": value.detach(), f"average.{name}": self.average[name]}
            tensors |= {f"best.{name}": self.best[name]}
            tensors |= {f"{key}.{name}": part for key, part in state.items()}
        if self.generator is not None:
            tensors["generator"] = self.generator.get_state()
        numbers = {"step": self.step, "num": self.steps.num, "num_falls": self.num_falls, "ended": int(self.has_ended)}
        checkpoint.write(tensors, numbers)

    def _resume(self, checkpoint: Checkpoint) -> None:
        found = checkpoint.read({f"value.{name}": tuple(value.shape) for name, value in self.values.items()})
        if found is None:
            return
        tensors, numbers = found
        if numbers["num"] != self.steps.num:
            raise ValueError(
                f"{checkpoint.path} is of a search of {numbers['num']} steps, and this one has {self.steps.num}. "
                "Delete it, or ask for as many"
            )
        self.step, self.num_falls = int(numbers["step"]), int(numbers["num_falls"])
        self.has_ended = bool(numbers.get("ended", False))
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(tensors[f"value.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                self.best[name].copy_(tensors[f"best.{name}"])
        for full, tensor in tensors.items():
            key, _, name = full.partition(".")
            if key not in OWN and name in self.values:
                on = "cpu" if key == "step" else self.values[name].device
                self.optimiser.state[self.values[name]][key] = tensor.to(on)
        if self.generator is not None:
            self.generator.set_state(tensors["generator"])
