"""Settings of 1-D regression: streams of tasks that know their exact moments, and exact Bayes under each.

- `rbf`, `matern52`: Gaussian processes, lengthscale uniform on (.1, .6), scale on (.1, 1).
- `periodic`: the same with a kernel of period 1, which is known.
- `sawtooth`: teeth of height one, their number per unit of x uniform on (1, 3), shifted by any amount.
- `mixture`: each task is of one of these four, equally probable.

x is uniform on (-2, 2), and the noise has standard deviation .02.

Source: the `regression` experiments of Nguyen and Grover, Transformer neural processes (2022), whose periodic kernels
have shorter periods; sawtooth: Gordon et al., Convolutional conditional neural processes (2020), with more teeth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from bayesmeta import Data
from bayesmeta.neural_processes.episodes import Moments
from benchmarks.neural_processes.exact import Scores, exact_sawtooth, exact_scores, midpoints

__all__ = ["KERNELS", "STREAMS", "MixedStream", "ProcessStream", "SawtoothStream", "Stream"]

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

    parameters: ClassVar[tuple[str, ...]] = ("lengthscale", "scale")

    kernel: str
    lengthscales: tuple[float, float] = (0.1, 0.6)
    scales: tuple[float, float] = (0.1, 1.0)

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        return self.draw_with_parameters(num_tasks, num_rows, generator=generator)[0]

    def draw_with_parameters(self, num_tasks: int, num_rows: int, *, generator: Generator) -> tuple[Data, Tensor]:
        """Tasks, and lengthscale and scale of each `(num_tasks, 2)`."""
        x, factor, drawn = self._factor(num_tasks, num_rows, generator)
        y = (factor @ torch.randn(num_tasks, num_rows, 1, generator=generator, dtype=torch.float64))[..., 0]
        return Data.of(x, y), drawn

    def exact(self, known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> Scores:
        """Of exact Bayes, lengthscale and scale integrated on a grid."""
        kernel = KERNELS[self.kernel]
        grid, scales = midpoints(*self.lengthscales, 48)[:, None], midpoints(*self.scales, 32)
        return exact_scores(lambda d, point: kernel(d, point[0]), grid, scales, NOISE, known, asked)

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        num_rows = num_known + num_asked
        x, factor, _ = self._factor(num_tasks, num_rows, generator)
        z = torch.randn(num_tasks, num_rows, generator=generator, dtype=torch.float64)
        y = (factor @ z[..., None])[..., 0]
        # row i of the factor is what each earlier draw adds to y_i
        added = factor[:, num_known:, :num_known]
        mean = torch.nn.functional.pad((added * z[:, None, :num_known]).cumsum(-1), (1, 0))
        total = factor[:, num_known:].square().sum(-1, keepdim=True)
        var = total - torch.nn.functional.pad(added.square().cumsum(-1), (1, 0))
        return Data.of(x, y), Moments(mean, var)

    def _factor(self, num_tasks: int, num_rows: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        x = _uniform(-2.0, 2.0, (num_tasks, num_rows, 1), generator)
        drawn = [_uniform(*limits, (num_tasks, 1, 1), generator) for limits in (self.lengthscales, self.scales)]
        lengthscale, scale = drawn
        cov = scale.square() * KERNELS[self.kernel](x - x.mT, lengthscale)
        factor = torch.linalg.cholesky(cov + (NOISE**2 + JITTER) * torch.eye(num_rows, dtype=torch.float64))
        return x, factor, torch.cat(drawn, 1)[..., 0]


@dataclass(frozen=True)
class SawtoothStream:
    """Tasks of teeth that rise or fall: y = (number x + shift) mod 1 - 1/2, or minus this."""

    numbers: tuple[float, float] = (1.0, 3.0)

    parameters: ClassVar[tuple[str, ...]] = ("number", "sign")

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        return self.draw_with_parameters(num_tasks, num_rows, generator=generator)[0]

    def draw_with_parameters(self, num_tasks: int, num_rows: int, *, generator: Generator) -> tuple[Data, Tensor]:
        """Tasks, and number of teeth and sign of each `(num_tasks, 2)`."""
        x, mean, drawn = self._function(num_tasks, num_rows, generator)
        noise = NOISE * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        return Data.of(x, mean + noise), drawn

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        x, mean, _ = self._function(num_tasks, num_known + num_asked, generator)
        noise = NOISE * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        asked = mean[:, num_known:, None].expand(-1, -1, num_known + 1)
        return Data.of(x, mean + noise), Moments(asked, torch.full_like(asked, NOISE**2))

    def exact(self, known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> Scores:
        """Of exact Bayes, number, shift and sign integrated on a grid."""
        return exact_sawtooth(self.numbers, NOISE, known, asked)

    def _function(self, num_tasks: int, num_rows: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        x = _uniform(-2.0, 2.0, (num_tasks, num_rows, 1), generator)
        number, shift = (_uniform(*limits, (num_tasks, 1), generator) for limits in (self.numbers, (0.0, 1.0)))
        sign = torch.where(_uniform(0.0, 1.0, (num_tasks, 1), generator) < 0.5, 1.0, -1.0)
        return x, sign * ((number * x[..., 0] + shift) % 1.0 - 0.5), torch.cat([number, sign], 1)


Stream = ProcessStream | SawtoothStream


@dataclass(frozen=True)
class MixedStream:
    """Each task is of one of several streams."""

    streams: Sequence[Stream]

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        parts = [
            stream.draw(num, num_rows, generator=generator) for stream, num in self._each(num_tasks, generator) if num
        ]
        return Data.of(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        parts = [
            stream.draw_with_moments(num, num_known, num_asked, generator=generator)
            for stream, num in self._each(num_tasks, generator)
            if num
        ]
        tasks = Data.of(torch.cat([part.x for part, _ in parts]), torch.cat([part.y for part, _ in parts]))
        return tasks, Moments(*(torch.cat(each) for each in zip(*(moments for _, moments in parts), strict=True)))

    def _each(self, num_tasks: int, generator: Generator) -> list[tuple[Stream, int]]:
        chosen = torch.randint(len(self.streams), (num_tasks,), generator=generator)
        return list(zip(self.streams, chosen.bincount(minlength=len(self.streams)).tolist(), strict=True))


STREAMS: dict[str, Stream] = {name: ProcessStream(name) for name in KERNELS} | {"sawtooth": SawtoothStream()}


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
