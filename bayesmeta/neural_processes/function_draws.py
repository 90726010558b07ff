"""Draws of functions from a process that knows marginals alone: they remember where they were evaluated.

A draw begins as the posterior. Where it is evaluated for the first time, a value is drawn from the marginal there, and
then counts as a row that the draw was conditioned on: what comes later has to agree with it. The same point gives the
same value, and nearby ones nearby values, as far as the network has learned that functions are smooth.

Points are taken one after another, at most `MOST_POINTS` of them in the life of a bundle of draws. Later ones get the
mean given all that was drawn, which then is next to known wherever points lie close.

Source: Bruinsma et al., Autoregressive conditional neural processes (2023).
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.doors import Draws
from bayesmeta.random import randn

__all__ = ["Chain", "FunctionDraws"]

MOST_POINTS = 256


class Chain(Protocol):
    """A process that takes in rows one after another, in place: one for each draw of each task."""

    @property
    def batch_shape(self) -> torch.Size:
        """Draws, then tasks."""
        ...

    def marginal(self, x: Tensor) -> Normal:
        """f at each row `(draws, *batch, q, d)`, noise-free."""
        ...

    def predict(self, x: Tensor) -> Distribution:
        """y at each row."""
        ...

    def add(self, x: Tensor, y: Tensor) -> None:
        """One row for each draw of each task: `(draws, *batch, d)` and `(draws, *batch)`."""
        ...


@dataclass(frozen=True, eq=False)
class FunctionDraws(Draws):
    """A bundle of draws.

    Args:
        noise_sd: of y about the function.
        chain: the posterior, once for each draw; it is changed by each evaluation.
        generator: of the values.
    """

    noise_sd: Float[Tensor, ""]
    chain: Any
    generator: Generator | None = None
    _points: list[Tensor] = field(default_factory=list)
    _values: list[Tensor] = field(default_factory=list)

    def _parts(self) -> dict[str, Any]:
        return {"draws": self.chain.batch_shape[0], "points": f"{len(self._points)} of {MOST_POINTS}"}

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """f(x), noise-free: `(draws, *batch, q)`."""
        num_draws, *batch = self.chain.batch_shape
        x = x.expand(*torch.broadcast_shapes(tuple(batch), x.shape[:-2]), *x.shape[-2:])
        if tuple(x.shape[:-2]) != tuple(batch):
            raise ValueError(
                f"these draws are of tasks of shape {tuple(batch)}; x has tasks of shape {tuple(x.shape[:-2])}"
            )
        return torch.stack([self._at(x[..., i, :], num_draws) for i in range(x.shape[-2])], -1)

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(y | x, each draw)."""
        return Normal(self(x), self.noise_sd.expand(*self.chain.batch_shape, x.shape[-2]))

    def _at(self, x: Tensor, num_draws: int) -> Tensor:
        """Values at one point of each task, `(draws, *batch)`."""
        for point, value in zip(self._points, self._values, strict=True):
            if torch.equal(point, x):
                return value
        everyone = x.expand(num_draws, *x.shape)
        marginal = self.chain.marginal(everyone[..., None, :])
        if len(self._points) == MOST_POINTS:
            return marginal.mean[..., 0]
        noise = randn(marginal.mean.shape, like=marginal.mean, generator=self.generator)
        value = (marginal.mean + marginal.stddev * noise)[..., 0]
        self.chain.add(everyone, value)
        self._points.append(x.clone())
        self._values.append(value)
        return value
