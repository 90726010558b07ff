"""Draws of a Gaussian process: random features of the prior, moved to the data exactly.

Source: Wilson et al., Efficiently sampling functions from Gaussian process posteriors (2020).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.doors import Draws
from bayesmeta.random import gamma, randn

if TYPE_CHECKING:  # a process makes its draws
    from bayesmeta.gp.process import GaussianProcess

__all__ = ["PathFunctions"]

NUM_FREQUENCIES = 256  # of the random features of a draw


@dataclass(frozen=True, eq=False)
class PathFunctions(Draws):
    """Draws of f: a prior path plus the correction that moves it to the data, exactly."""

    process: "GaussianProcess"
    frequencies: Float[Tensor, "draws *#batch waves d"]
    amplitudes: Float[Tensor, "draws *#batch two_waves"]
    direction_weights: Float[Tensor, "draws *#batch r"]
    level: Float[Tensor, "draws *#batch"]
    correction: Float[Tensor, "draws *#batch n"] | None

    @classmethod
    def draw(cls, process: "GaussianProcess", num_draws: int, generator: Generator | None) -> "PathFunctions":
        like, batch = process.lengthscale, process.batch_shape
        d = like.shape[-1]
        # the spectral density of Matern-5/2 is a multivariate t with 5 degrees of freedom
        normal = randn((num_draws, *batch, NUM_FREQUENCIES, d), like=like, generator=generator)
        chi = gamma((num_draws, *batch, NUM_FREQUENCIES), like.new_tensor(2.5), generator=generator) / 2.5
        frequencies = normal / chi.sqrt()[..., None] / like[..., None, :]
        amplitudes = randn((num_draws, *batch, 2 * NUM_FREQUENCIES), like=like, generator=generator)
        rank = 0 if process.past is None else process.past.directions.shape[-1]
        directions = randn((num_draws, *batch, rank), like=like, generator=generator)
        directions = process.past_loading.to(directions) + process.past_var.sqrt()[..., None] * directions
        level = randn((num_draws, *batch), like=like, generator=generator)
        level = process.constant + process.constant_var.sqrt() * level
        path = cls(process, frequencies, amplitudes, directions, level, None)
        if process.rows is None or process.factor is None:
            return path
        rows = process.rows
        noise = randn((num_draws, *batch, rows.mask.shape[-1]), like=like, generator=generator)
        noise = process.noise_var[..., None].sqrt() * noise
        gap = (rows.y / process.scale[..., None] - path._unscaled(rows.x) - noise) * rows.mask
        factor = process.factor.expand(*gap.shape, -1)
        return replace(path, correction=torch.cholesky_solve(gap[..., None], factor)[..., 0])

    def __call__(self, x: Float[Tensor, "*tasks q d"]) -> Tensor:
        """f(x), `(draws, *batch, q)`.

        Raises:
            ValueError: x has more axes of tasks than the process, which would pair tasks with draws.
        """
        batch = self.frequencies.shape[1:-2]
        if x.ndim - 2 > len(batch):
            raise ValueError(
                f"x must have shape (..., q, d) with at most the axes of the process's batch_shape {tuple(batch)} "
                f"before rows; got {tuple(x.shape)}. Join tasks and rows, or draw from a process with that batch"
            )
        return self.process.scale[..., None] * self._unscaled(x)

    def predict(self, x: Tensor) -> Distribution:
        mean = self(x)
        noise = self.process.scale * self.process.noise_var.sqrt()
        return Normal(mean, noise[..., None].expand_as(mean))

    def select(self, index: Int64[Tensor, "draws *batch"]) -> "PathFunctions":
        """The path of each draw at one place of the last axis of the batch, and of all other places nothing is kept.

        The process then has parameters of each draw, on the left of the batch.
        """
        # the correction says all that the factor of the rows was for
        unfactored = self.process._replace(factor=None, residual=None)
        return PathFunctions(
            unfactored._each_parameter(lambda value, num_last: _select(value, index, num_last)),
            _select(self.frequencies, index, 2),
            _select(self.amplitudes, index, 1),
            _select(self.direction_weights, index, 1),
            _select(self.level, index, 0),
            None if self.correction is None else _select(self.correction, index, 1),
        )

    def _unscaled(self, x: Tensor) -> Tensor:
        process, at = self.process, self.process._at(x)
        angles = x @ self.frequencies.mT
        waves = (torch.cat([angles.sin(), angles.cos()], -1) @ self.amplitudes[..., None])[..., 0]
        value = self.level[..., None] + process.past_weight[..., None] * at.past_mean
        waves = waves if at.widening is None else at.widening * waves
        value = value + (process.outputscale / NUM_FREQUENCIES).sqrt()[..., None] * waves
        value = value + (at.directions @ self.direction_weights[..., None])[..., 0]
        if self.correction is None:
            return value
        rows = cast(Data, process.rows)
        cross = process._covariance(at, process._at(rows.x))
        return value + ((cross * rows.mask[..., None, :]) @ self.correction[..., None])[..., 0]


def _select(value: Tensor, index: Tensor, num_last: int) -> Tensor:
    """The entry of each draw along the last axis of the batch, which `num_last` axes follow."""
    axis = -1 - num_last
    if value.ndim <= num_last:
        return value
    if value.shape[axis] == 1:
        return value.squeeze(axis)
    index = index.reshape(*index.shape, *[1] * (num_last + 1))
    value = value.reshape(*[1] * (index.ndim - value.ndim), *value.shape)
    return value.take_along_dim(index, axis).squeeze(axis)
