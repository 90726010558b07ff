"""Particles that stay warm between rows: what a policy owns while its tasks run.

Particles are kept at a level of noise. Given u there and all rows with normal noise, theta is Gaussian with one
covariance for all particles of a task, so a row costs a step of Kalman's filter for the mean of each and one for the
covariance, and no look at the network. Weights follow from what each particle expected of the row. Particles are never
moved, so that in the end few have all the weight: then the task is looked at anew, from all of its rows, by particles
that come from half way down where that will do (`bayesmeta.diffusion.sampling.middle`). With an approximate sampler,
which weighs nothing, it is looked at anew after each row.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bayesmeta.data.validation import require_finite
from bayesmeta.diffusion.family import DiffusionFamily
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.middle import Middle
from bayesmeta.diffusion.sampling.particle_filter import effective_size
from bayesmeta.numerics.square_root import potter_
from bayesmeta.online.protocol import Index, State, Task, distinct, rows_before

__all__ = ["STALE", "ParticlesInPlace", "at"]

STALE = 0.25  # share of the particles: where fewer are effective, the task is looked at anew


class ParticlesInPlace(ABC):
    """Particles of tasks, to be updated in place.

    Args:
        prior: without rows, or a posterior of each task.
        batch_shape: tasks, or tasks and arms.
    """

    def __init__(self, prior: DiffusionFamily, batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self._start = prior.expand(self.batch_shape) if prior.batch_shape else prior
        found, k, num = self._start._posterior, prior.num_values, self.batch_shape.numel()
        self._mean = found.mean.expand(num, -1, -1).reshape(*self.batch_shape, -1, k).clone()
        self._root = found.root.expand(num, -1, -1).reshape(*self.batch_shape, k, k).clone()
        self._log_weights = found.log_weights.expand(num, -1).reshape(*self.batch_shape, -1).clone()
        self.num_reruns = torch.zeros(self.batch_shape, dtype=torch.long, device=prior.device)
        self._log_evidence = torch.zeros_like(self._log_weights[..., 0])
        self._before = found.log_evidence.expand(num).reshape(self.batch_shape)  # of rows that the prior has seen
        self._middle: Middle | None = None  # where particles were half way, once a task was looked at anew

    @property
    def log_evidence(self) -> Tensor:
        """log p(rows) of each task: the filter's estimate when it was looked at last, and what later rows added.

        Raises:
            ValueError: the sampler is an approximate one.
        """
        self._start.require_weighted()
        return self._log_evidence

    @property
    def ess(self) -> Tensor:
        """Effective number of the particles of each task."""
        return effective_size(self._log_weights)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        require_finite("y", y)
        x, turn = self._read(x, y), rows_before(index)
        if not self._start.is_approximate:
            for i in range(int(turn.max()) + 1):
                rows = turn == i
                self._step(tuple(part[rows] for part in index), x[rows], y[rows].double())
        self._keep(index, x, y)
        self._look_anew(index)

    def state_dict(self) -> State:
        particles = {"mean": self._mean, "root": self._root, "log_weights": self._log_weights}
        middle = {} if self._middle is None else {f"middle_{name}": part for name, part in vars(self._middle).items()}
        return {"num_reruns": self.num_reruns, "log_evidence": self._log_evidence, **particles, **middle}

    def load_state_dict(self, state: State) -> None:
        self._mean, self._root, self._log_weights = (state[name].clone() for name in ("mean", "root", "log_weights"))
        self.num_reruns, self._log_evidence = (state[name].clone() for name in ("num_reruns", "log_evidence"))
        middle = {
            field.name: state[f"middle_{field.name}"].clone()
            for field in fields(Middle)
            if f"middle_{field.name}" in state
        }
        self._middle = Middle(**middle) if middle else None

    @abstractmethod
    def posterior(self, index: Any = ...) -> Any:
        """Of all rows, as `condition` of the prior says."""

    @abstractmethod
    def _read(self, x: Tensor, y: Tensor) -> Tensor:
        """Inputs of rows, in the form that `_step` and `_keep` take; refuses rows that the family cannot have."""

    @abstractmethod
    def _keep(self, index: Index, x: Tensor, y: Tensor) -> None:
        """Beside the rows before."""

    @abstractmethod
    def _step(self, index: Index, x: Tensor, y: Tensor) -> None:
        """One row of each of distinct tasks."""

    def _step_of_normal(self, index: Index, f: Tensor, expected: Tensor, y: Tensor, noise_var: Tensor) -> None:
        """One row with normal noise: f is `root.mT @ x` `(m, k)`, and each particle expects another y `(m, n)`."""
        left, var = y[:, None] - expected, f.square().sum(-1) + noise_var
        mean, root = self._taken(self._mean, index), self._taken(self._root, index)
        gain = potter_(root, f, noise_var.expand(len(f)))
        mean.baddbmm_(left[..., None], gain[:, None])
        if mean is not self._mean:
            self._mean[index], self._root[index] = mean, root
        self._weigh(index, -0.5 * (left.square() / var[:, None] + (2.0 * math.pi * var).log()[:, None]))

    def _taken(self, part: Tensor, index: Index) -> Tensor:
        """Of distinct tasks: a copy, unless they are all of them in their order."""
        num = len(part)
        is_all = len(index) == 1 and len(index[0]) == num and bool((index[0] == torch.arange(num).to(index[0])).all())
        return part if is_all else part[index]

    def _weigh(self, index: Index, log_prob: Tensor) -> None:
        """By what each particle says of a row `(m, n)`."""
        weighed = self._log_weights[index] + log_prob
        self._log_evidence[index] += weighed.logsumexp(-1)
        self._log_weights[index] = weighed.log_softmax(-1)

    def _look_anew(self, index: Index) -> None:
        enough = effective_size(self._log_weights[index]) >= STALE * self._log_weights.shape[-1]
        few = torch.ones_like(enough) if self._start.is_approximate else ~enough  # weights may be no numbers
        if not bool(few.any()):
            return
        poor = distinct(tuple(part[few] for part in index))
        found = self._looked_at(poor)
        self._mean[poor], self._log_weights[poor] = found.mean, found.log_weights
        self._log_evidence[poor] = found.log_evidence - self._before[poor]
        self._root[poor] = found.root
        self.num_reruns[poor] += 1

    def _looked_at(self, poor: Index) -> WeightedGaussians:
        """Of distinct tasks."""
        posterior: DiffusionFamily = self.posterior(poor)
        if self._start.is_approximate or posterior.chain.middle is None:
            return posterior._posterior
        if self._middle is None:
            num, k = self._mean.shape[-2:]
            self._middle = Middle.nowhere(self.batch_shape.numel(), num, k, self._mean)
        places = torch.arange(self.batch_shape.numel(), device=poor[0].device).reshape(self.batch_shape)
        return posterior.looked_at_again(places[poor], self._middle)

    def _of(self, index: Any) -> Any:
        """The prior of some tasks: each its own where it is a posterior of them."""
        return self._start[index] if self._start.batch_shape else self._start


def at(part: Tensor, x: Tensor, task: Task) -> Tensor:
    """What is kept of the task of each decision; a copy only where decisions name their tasks."""
    if isinstance(task, int):
        return part[task].expand(len(x), *part.shape[1:])
    return part if task is None else part[task]
