"""Gaussian processes of the reference setting, as streams of tasks that know their exact moments.

Source: the `regression` experiments of Nguyen and Grover, Transformer neural processes (2022): x uniform on (-2, 2),
lengthscale on (.1, .6), scale on (.1, 1), noise of standard deviation .02.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta import Data
from bayesmeta.neural_processes.episodes import Moments

__all__ = ["KERNELS", "ProcessStream"]

NOISE = 0.02
JITTER = 1e-9


def rbf(d: Tensor, lengthscale: Tensor) -> Tensor:
    return torch.exp(-0.5 * (d / lengthscale).square())


def matern52(d: Tensor, lengthscale: Tensor) -> Tensor:
    r = math.sqrt(5.0) * d.abs() / lengthscale
    return (1.0 + r + r.square() / 3.0) * torch.exp(-r)


def periodic(d: Tensor, lengthscale: Tensor) -> Tensor:
    return torch.exp(-2.0 * (torch.sin(math.pi * d) / lengthscale).square())


KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"rbf": rbf, "matern52": matern52, "periodic": periodic}


@dataclass(frozen=True)
class ProcessStream:
    """Tasks of one kernel, whose lengthscale and scale are drawn for each task."""

    kernel: str
    lengthscales: tuple[float, float] = (0.1, 0.6)
    scales: tuple[float, float] = (0.1, 1.0)

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        x, factor = self._factor(num_tasks, num_rows, generator)
        y = (factor @ torch.randn(num_tasks, num_rows, 1, generator=generator, dtype=torch.float64))[..., 0]
        return Data.of(x, y)

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        num_rows = num_known + num_asked
        x, factor = self._factor(num_tasks, num_rows, generator)
        z = torch.randn(num_tasks, num_rows, generator=generator, dtype=torch.float64)
        y = (factor @ z[..., None])[..., 0]
        # row i of the factor is what each earlier draw adds to y_i
        added = factor[:, num_known:, :num_known]
        mean = torch.nn.functional.pad((added * z[:, None, :num_known]).cumsum(-1), (1, 0))
        total = factor[:, num_known:].square().sum(-1, keepdim=True)
        var = total - torch.nn.functional.pad(added.square().cumsum(-1), (1, 0))
        return Data.of(x, y), Moments(mean, var)

    def _factor(self, num_tasks: int, num_rows: int, generator: Generator) -> tuple[Tensor, Tensor]:
        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

        x = uniform(-2.0, 2.0, num_tasks, num_rows, 1)
        lengthscale, scale = (uniform(*limits, num_tasks, 1, 1) for limits in (self.lengthscales, self.scales))
        cov = scale.square() * KERNELS[self.kernel](x - x.mT, lengthscale)
        return x, torch.linalg.cholesky(cov + (NOISE**2 + JITTER) * torch.eye(num_rows, dtype=torch.float64))
