"""What chains sample: one unnormalised log density for each of many tasks, evaluated for all of them at once.

Positions are `(*draws, tasks, d)`, float64, unconstrained: whatever maps them to natural parameters is part of the
density, with its Jacobian.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Generator, Tensor

from bayesmeta.numerics.gradients import with_gradients

__all__ = ["Densities", "Proposal", "Targets", "curvatures", "evaluate"]

IN_CACHE = 2**17  # numbers that a density makes at once: 1 MB of float64
T = TypeVar("T", bound="Targets")
P = TypeVar("P", bound="Proposal")


@runtime_checkable
class Proposal(Protocol):
    """A normalised density for each task, which can be drawn from: any family with a `Density` is one."""

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Independent draws `(num_draws, tasks, d)`."""
        ...

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of `(..., tasks, d)`, shape `(..., tasks)`."""
        ...

    def __getitem__(self: P, index: Any) -> P:
        """Those of some tasks."""
        ...


@runtime_checkable
class Targets(Protocol):
    """Unnormalised log densities of tasks."""

    @property
    def num_tasks(self) -> int: ...

    @property
    def reference(self) -> Proposal:
        """A density per task that covers its target: chains start apart from its draws, tempering starts from it."""
        ...

    @property
    def width(self) -> int:
        """Numbers that one evaluation makes of a task, such as its rows: it decides how many are evaluated at once."""
        ...

    def log_density(self, positions: Tensor) -> Tensor:
        """Of positions `(*draws, tasks, d)`, shape `(*draws, tasks)`."""
        ...

    def derivatives(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log density, gradient `(..., tasks, d)`, and minus the Hessian `(..., tasks, d, d)`."""
        ...

    def __getitem__(self: T, index: Tensor) -> T:
        """Those of some tasks."""
        ...


@dataclass(frozen=True, eq=False)
class Densities:
    """Log densities by one function of positions and of the tasks' data.

    Args:
        function: of positions `(*draws, tasks, d)` and of each entry of `data` by name; returns `(*draws, tasks)`. It
            is asked for some of the tasks at a time, must treat each alike, and be differentiable by torch.
        reference: see `Targets`; its batch is the tasks.
        data: tensors whose first axis is the tasks, by name.
    """

    function: Callable[..., Tensor]
    reference: Proposal
    data: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.data.items():
            if len(value) != self.num_tasks:
                raise ValueError(
                    f"data[{name!r}] must have the tasks of reference, {self.num_tasks}, on its first axis; "
                    f"got shape {tuple(value.shape)}"
                )

    @classmethod
    def of_posterior(cls, prior: Any, log_likelihood: Callable[..., Tensor], data: Mapping[str, Tensor]) -> "Densities":
        """Posteriors under `prior`, a family with a `Density`, of what `log_likelihood` says of `data`.

        Args:
            prior: without a batch, or with one entry for each task.
            log_likelihood: of positions and data, as `function`.
        """
        tasks = len(next(iter(data.values())))
        each = prior.to(torch.float64).expand((tasks,))
        return cls(_Product(log_likelihood), each, data)

    @property
    def num_tasks(self) -> int:
        return int(self.reference.batch_shape[0])  # type: ignore[attr-defined]

    @property
    def width(self) -> int:
        return max([1, *(value[0].numel() for value in self.data.values())])

    def log_density(self, positions: Tensor) -> Tensor:
        if isinstance(self.function, _Product):
            return self.reference.log_prob(positions) + self.function.log_likelihood(positions, **self.data)
        return self.function(positions, **self.data)

    @with_gradients
    def derivatives(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return curvatures(self.log_density, positions)

    def __getitem__(self, index: Tensor) -> "Densities":
        return Densities(self.function, self.reference[index], {name: v[index] for name, v in self.data.items()})


@dataclass(frozen=True)
class _Product:
    """Marks a function as one that the reference, a prior, is multiplied with."""

    log_likelihood: Callable[..., Tensor]

    def __call__(self, positions: Tensor, **data: Tensor) -> Tensor:
        return self.log_likelihood(positions, **data)


def curvatures(function: Callable[[Tensor], Tensor], positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values of a function of `(..., d)`, gradients, and minus the Hessians `(..., d, d)`, by torch: d backward passes.

    The function must treat each of the leading entries by itself.
    """
    at = positions.detach().requires_grad_()
    value = function(at)
    (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
    d = positions.shape[-1]
    if not slope.requires_grad:  # linear: there is no curvature
        return value.detach(), slope, positions.new_zeros(*positions.shape, d)
    rows = [
        torch.autograd.grad(slope[..., i].sum(), at, retain_graph=i < d - 1, materialize_grads=True)[0]
        for i in range(d)
    ]
    return value.detach(), slope.detach(), -torch.stack(rows, -2)


@torch.no_grad()
def evaluate(targets: Targets, positions: Tensor) -> Tensor:
    """`targets.log_density` of positions `(n, tasks, d)`, a few tasks at a time, so that what it makes stays in cache.

    Where it is no number, or plus infinity, the answer is minus infinity: such positions are never accepted.
    """
    each = max(1, IN_CACHE // max(1, positions.shape[0] * targets.width))
    if each >= targets.num_tasks:
        found = targets.log_density(positions)
    else:
        every = torch.arange(targets.num_tasks)
        found = positions.new_empty(positions.shape[:-1])
        for part in every.split(each):
            found[:, part] = targets[part].log_density(positions[:, part])
    return found.where(found < torch.inf, -torch.inf)  # NaN compares false, too
