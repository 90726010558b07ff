"""Posteriors that are not like a Gaussian, each by a simulator, a log density, and the truth to compare with."""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc import Densities, StudentMixture

__all__ = ["Problem", "Truth", "reference"]


class Truth(NamedTuple):
    """Posterior moments of each task.

    Args:
        mean, sd: of each coordinate `(T, d)`.
        error: standard error of `mean`, zero where it is by quadrature.
    """

    mean: Tensor
    sd: Tensor
    error: Tensor


class Problem(Protocol):
    """A simulator of tasks, and what is known of their posteriors."""

    @property
    def name(self) -> str: ...

    @property
    def categories(self) -> dict[int, int]:
        """Columns of rows that hold categories, with how many there are."""
        ...

    def simulate(self, num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters `(T, d)`, rows `(T, n, c)` and their mask `(T, n)`."""
        ...

    def targets(self, rows: Tensor, mask: Tensor) -> Densities:
        """Posteriors of tasks."""
        ...

    def truth(self, rows: Tensor, mask: Tensor) -> Truth:
        """Their moments."""
        ...


def reference(num_tasks: int, loc: Tensor, scale: Tensor) -> StudentMixture:
    """As wide as a normal prior with this mean and these standard deviations `(d,)`, for each task."""
    each = StudentMixture(loc.new_zeros(1), loc[None], torch.diag(scale)[None])
    return each.expand((num_tasks,))
