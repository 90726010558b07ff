"""What a proposal learns from: tasks whose parameters are known, by a simulator or by draws of their posteriors."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from bayesmeta.data.rows import describe_rows
from bayesmeta.numerics.as_floats import as_floats
from bayesmeta.random import randint

__all__ = ["PastPosteriors", "Simulator", "Tasks", "checked_rows", "drawn_tasks", "some_of"]


@runtime_checkable
class Simulator(Protocol):
    """Tasks that are drawn anew each time: parameters by the prior, and rows given these."""

    def __call__(self, num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Unconstrained parameters `(T, d)`, rows `(T, n, c)`, and which of the rows are real `(T, n)`."""
        ...


class Tasks(NamedTuple):
    """Tasks whose parameters are known.

    Args:
        params: draws of the parameters given the rows `(draws, T, d)`; the truth of a simulated task is one draw.
        rows: `(T, n, c)`, zero where they are padding.
        mask: which of them are real `(T, n)`.
    """

    params: Tensor
    rows: Tensor
    mask: Tensor


@dataclass(frozen=True)
class PastPosteriors:
    """Tasks of the past with draws of their posteriors, such as those of `bayesmeta.mcmc.sample`.

        PastPosteriors(draws.position.flatten(0, 1), rows, mask)

    Args:
        params: unconstrained draws of each task.
        rows: of each task; padding may hold anything.
        mask: which rows are real; None where all are.

    Raises:
        ValueError: a draw or a row is not finite, there are other tasks in one than in another, or fewer than two.
    """

    params: Float[Tensor, "draws tasks d"]
    rows: Float[Tensor, "others n c"]
    mask: Bool[Tensor, "others n"] | None = None

    def __post_init__(self) -> None:
        if self.params.shape[1] < 2:
            raise ValueError(f"a proposal learns from at least two past tasks; got {self.params.shape[1]}")
        tasks = _checked(self.params, *checked_rows(self.rows, self.mask), None)
        object.__setattr__(self, "mask", tasks.mask)
        object.__setattr__(self, "rows", tasks.rows)

    def all(self) -> Tasks:
        """All tasks with all draws."""
        assert self.mask is not None
        return Tasks(self.params, self.rows, self.mask)


def some_of(tasks: Tasks, num_tasks: int, num_draws: int, generator: Generator) -> Tasks:
    """Tasks that are chosen at random, each with some of its draws."""
    index = randint(len(tasks.rows), (num_tasks,), generator=generator).to(tasks.rows.device)
    draws = randint(len(tasks.params), (num_draws, num_tasks), generator=generator).to(tasks.rows.device)
    return Tasks(tasks.params[draws, index], tasks.rows[index], tasks.mask[index])


def drawn_tasks(simulate: Simulator, num_tasks: int, generator: Generator, num_params: int | None = None) -> Tasks:
    """Tasks of a simulator, which must be as many as it was asked for, with finite numbers in them."""
    made = simulate(num_tasks, generator)
    if not (isinstance(made, tuple) and len(made) == 3):
        raise TypeError(f"a simulator must return parameters, rows and a mask; got {type(made).__name__}")
    params, rows, mask = made
    params = as_floats("params", params)
    if params.ndim != 2 or len(params) != num_tasks:
        raise ValueError(
            f"a simulator that is asked for {num_tasks} tasks must return parameters of shape ({num_tasks}, d); "
            f"got {tuple(params.shape)}"
        )
    return _checked(params[None], *checked_rows(rows, mask), num_params)


def _checked(params: Tensor, rows: Tensor, mask: Tensor, num_params: int | None) -> Tasks:
    if len(rows) != params.shape[1]:
        raise ValueError(f"params are of {params.shape[1]} tasks, and rows of {len(rows)}")
    if num_params is not None and params.shape[-1] != num_params:
        raise ValueError(f"params must have {num_params} entries a task; got {params.shape[-1]}")
    bad = ~params.isfinite().all(-1).all(0)
    if bool(bad.any()):
        raise ValueError(f"params must be finite; those of task {int(bad.nonzero()[0, 0])} are not")
    return Tasks(params, rows, mask)


def checked_rows(rows: Any, mask: Any = None, num_columns: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows `(T, n, c)` with zeros for padding, and their mask.

    Raises:
        ValueError: shapes are others, or a row is not finite where the mask is true.
    """
    rows = as_floats("rows", rows)
    wanted = "c" if num_columns is None else str(num_columns)
    if rows.ndim != 3 or (num_columns is not None and rows.shape[-1] != num_columns):
        raise ValueError(f"rows must have shape (tasks, n, {wanted}); got {tuple(rows.shape)}")
    if mask is None:
        mask = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
    mask = torch.as_tensor(mask, device=rows.device)
    if mask.dtype != torch.bool or mask.shape != rows.shape[:-1]:
        raise ValueError(
            f"mask must be bool, of shape {tuple(rows.shape[:-1])}; got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    bad = ~rows.isfinite().all(-1) & mask
    if bool(bad.any()):
        raise ValueError(f"rows must be finite where mask is true; {describe_rows(bad)}")
    return rows.where(mask[..., None], 0.0), mask
