"""What a stream of tasks is asked for: tasks, theta where it knows it, and the moments of theta.

With the moments of theta known, the variance of noise is the one at which rows are most probable under the Gaussian
prior. That is right in the limit of many rows, whatever the shape of theta: its equation asks for second moments alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from scipy.optimize import minimize_scalar
from torch import Generator, Tensor

from bayesmeta.data.validation import require_finite
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.past_vectors import theta_given_rows
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.learning.task_streams import TaskStream, drawn_from

if TYPE_CHECKING:
    from bayesmeta.diffusion.family import DiffusionFamily

__all__ = ["KnowsTheta", "StreamedTasks"]

NUM_TASKS_KNOWN, NUM_TASKS_FITTED = 100_000, 4000  # from which a Gaussian prior is learned
NUM_ROWS = 2**16  # from which the noise is known, and what tasks show of theta
MOST_LOG = 20.0  # of the variance of noise over that where the search begins, either way
PIECE = 2**22  # numbers of theta that are held at once
ROUNDING = 1e-6  # of variances: theta may lie in a plane, and a Gaussian prior may not


@runtime_checkable
class KnowsTheta(TaskStream, Protocol):
    """A stream that can say what theta is: mean rewards of all arms, or weights."""

    def draw_theta(self, num_tasks: int, *, generator: Generator) -> Tensor:
        """Theta of new tasks `(num_tasks, k)`, without noise."""
        ...


@dataclass
class StreamedTasks:
    """New tasks of a stream for a prior, and how many there were.

    Args:
        prior: says what is kept of rows, and how many values theta has.
        stream: draws tasks.
        schedule: says how many rows each has.
        generator: of all draws.
        num_tasks, num_rows: that were drawn so far.
    """

    prior: "DiffusionFamily"
    stream: TaskStream
    schedule: DiffusionSchedule
    generator: Generator
    num_tasks: int = 0
    num_rows: int = 0

    @property
    def rows_of_each(self) -> int:
        """Rows of each task."""
        return self.schedule.num_rows or 2 * self.prior.num_values

    @property
    def learned_from(self) -> LearnedFrom:
        """How much was drawn."""
        return LearnedFrom(self.num_tasks, self.num_rows)

    def tasks(self, num: int) -> Any:
        """What the prior keeps of the rows of new tasks."""
        data = drawn_from(self.stream, num, self.rows_of_each, self.generator)
        self._count(num, int(data.mask.sum()))
        return self.prior.kept_of(data.to(self.prior.gaussian.loc.dtype))

    def theta(self, num: int) -> Tensor:
        """Theta of new tasks `(num, k)`, float64, of a stream that knows it."""
        assert isinstance(self.stream, KnowsTheta)
        theta: Any = self.stream.draw_theta(num, generator=self.generator)
        name, expected = f"{type(self.stream).__name__}.draw_theta", (num, self.prior.num_values)
        if not isinstance(theta, Tensor) or not theta.is_floating_point():
            what = theta.dtype if isinstance(theta, Tensor) else type(theta).__name__
            raise TypeError(f"{name} must return a tensor of floating-point numbers; got {what}")
        if tuple(theta.shape) != expected:
            raise ValueError(
                f"{name} must return theta of shape {expected}, for each of {num} tasks the {expected[1]} values of "
                f"theta; got {tuple(theta.shape)}"
            )
        require_finite(f"theta of {name}", theta)
        self._count(num, 0)
        return theta.double()

    def some_tasks(self) -> Any:
        """As many as show what noise is, and what rows show of theta."""
        return self.tasks(max(NUM_ROWS // self.rows_of_each, 2))

    def gaussian(self) -> "DiffusionFamily":
        """The prior with the Gaussian that it begins from."""
        prior, num = self.prior, self.schedule.num_tasks
        if not isinstance(self.stream, KnowsTheta):
            return prior.with_gaussian(prior.gaussian.fit(self.tasks(num or NUM_TASKS_FITTED)))
        known = prior.with_moments(*self._moments(num or NUM_TASKS_KNOWN))
        return known.with_gaussian(_with_noise(known.gaussian, self.some_tasks()))

    def white_theta(self, prior: "DiffusionFamily") -> Callable[[int], Tensor]:
        """What draws theta of new tasks, in units in which it is white and in directions of the basis.

        It takes a number of tasks and returns `(tasks, draws, r)`: theta itself where the stream knows it, or draws
        given rows by `prior`.
        """
        if not isinstance(self.stream, KnowsTheta):
            given_rows = theta_given_rows(prior, self.schedule, self.generator)
            return lambda num: given_rows(self.tasks(num))
        mean, into = prior.mean_and_whitening()
        return lambda num: ((self.theta(num) - mean) @ into)[:, None]

    def _moments(self, num: int) -> tuple[Tensor, Tensor]:
        """Mean and covariance of theta, of as many tasks."""
        size = max(2, PIECE // self.prior.num_values)
        origin = self.theta(2)[0]
        first, second = torch.zeros_like(origin), torch.zeros_like(torch.outer(origin, origin))
        for start in range(0, num, size):
            about = self.theta(min(size, num - start)) - origin
            first, second = first + about.sum(0), second + about.mT @ about
        cov = (second - torch.outer(first, first) / num) / (num - 1)
        var = cov.diagonal()
        if not bool((var > 0.0).any()):
            raise ValueError(f"theta of {type(self.stream).__name__} must vary between tasks; all of {num} are alike")
        return origin + first / num, cov + (ROUNDING * var.clamp(min=ROUNDING * var.max())).diag()

    def _count(self, num_tasks: int, num_rows: int) -> None:
        self.num_tasks, self.num_rows = self.num_tasks + num_tasks, self.num_rows + num_rows


def _with_noise(gaussian: Any, rows: Any) -> Any:
    """With the variance of noise at which rows are most probable, if it has one."""
    if not hasattr(gaussian, "noise_var"):
        return gaussian
    exact, start = gaussian.to(torch.float64), gaussian.noise_var.double()

    @torch.no_grad()
    def loss(log_ratio: float) -> float:
        return -float(replace(exact, noise_var=start * torch.tensor(log_ratio).double().exp()).log_evidence(rows).sum())

    best = minimize_scalar(loss, bounds=(-MOST_LOG, MOST_LOG), method="bounded", options={"xatol": 1e-4})
    return replace(gaussian, noise_var=(start * torch.tensor(best.x).double().exp()).to(gaussian.noise_var))
