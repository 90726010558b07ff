r"""A denoiser of curves and grids: convolutions, which know what is beside what.

Values of theta lie along a line, or at rows and columns of a grid, of which some may be empty. What the network sees of
theta with noise, in units in which theta is white and in orthonormal directions $b_1, \dots, b_r$, it puts there,

$$ u \mapsto \sum_j b_j u_j, $$

so that noise is independent from place to place, as far as the directions go. Beside it stand the same in theta's own
units, and channels that say where a place is and whether it has a value. What comes out is read off in the directions
again. So what is learned at one place holds at all others, unless their channels say otherwise.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from bayesmeta.diffusion.denoising.denoiser import NUM_WAVES, AtLevel, Denoiser, level_waves, relative
from bayesmeta.diffusion.denoising.grids.pyramid import Pyramid

__all__ = ["GridDenoiser"]

NUM_CHANNELS = 5  # white theta, theta, whether there is a value, row and column
MOST = 2**15  # places that are looked at together: their channels stay in a cache


@dataclass(frozen=True, eq=False)
class GridDenoiser(Denoiser):
    """Convolutions: of values on a line or a grid.

    Args:
        directions: orthonormal ones, of which a vector has its values `(k, r)`.
        places: row and column of each value of theta, from zero on `(k, 2)`.
        width, num_layers: channels, and layers at each resolution on each way.
    """

    directions: Float[Tensor, "k r"]
    places: Int[Tensor, "k 2"]
    width: int = 16
    num_layers: int = 1

    @classmethod
    def of(cls, variances: Tensor, directions: Tensor, places: Tensor, **options: Any) -> "GridDenoiser":
        """That has learned nothing, of vectors of these variances `(r,)` in these directions `(k, r)`."""
        scales, directions = relative(variances), directions.float().contiguous()
        return cls.initial(scales=scales, directions=directions, places=places, **options)

    def anew(self, variances: Tensor, directions: Tensor, generator: Generator) -> "GridDenoiser":
        sizes = {"width": self.width, "num_layers": self.num_layers}
        return GridDenoiser.of(variances, directions, self.places, generator=generator, **sizes)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        rows, columns = (self.places.amax(0) + 1).tolist()
        return rows, columns

    def build(self) -> "GridModule":
        return GridModule(self)


class GridModule(AtLevel):
    """See `GridDenoiser`."""

    def __init__(self, sizes: GridDenoiser) -> None:
        super().__init__()
        self.sizes, self.sides = sizes, sizes.sides
        self.pyramid = Pyramid(
            NUM_CHANNELS, 1, self.sides, width=sizes.width, num_layers=sizes.num_layers, num_said=2 * NUM_WAVES
        )

    def forward(self, u: Tensor, noise: Tensor) -> Tensor:
        """F: u `(..., r)` in units in which theta is white, noise `(...)`; `(..., r)`."""
        seen = (u / (1.0 + noise.square()).sqrt()[..., None]).reshape(-1, u.shape[-1])
        waves = level_waves(noise).reshape(-1, 2 * NUM_WAVES)
        num = max(1, MOST // (self.sides[0] * self.sides[1]))
        parts = [self._at(*some) for some in zip(seen.split(num), waves.split(num), strict=True)]
        return torch.cat(parts).reshape(u.shape)

    def _at(self, seen: Tensor, waves: Tensor) -> Tensor:
        directions, scales = self.sizes.directions.to(seen), self.sizes.scales.to(seen)
        k, r = directions.shape
        white = seen @ ((k / r) ** 0.5 * directions).mT
        theta = seen @ (k**0.5 * scales * directions).mT
        values = self._on_grid(torch.stack([white, theta], -2))
        where = self._on_grid(self._where(seen)).expand(len(seen), -1, -1, -1)
        found = self.pyramid(torch.cat([values, where], 1), waves)
        return found.flatten(1)[:, self._flat_places(seen)] @ directions

    def _where(self, like: Tensor) -> Tensor:
        """Ones, and rows and columns from -1 to 1, `(3, k)`."""
        places = self.sizes.places.to(like)
        spread = 2.0 * places / places.amax(0).clamp(min=1.0) - 1.0
        return torch.cat([torch.ones_like(spread[:, :1]), spread], -1).mT

    def _on_grid(self, values: Tensor) -> Tensor:
        """Channels `(..., channels, k)` at their places `(..., channels, *sides)`, among zeros."""
        grid = values.new_zeros(*values.shape[:-1], self.sides[0] * self.sides[1])
        return grid.index_copy(-1, self._flat_places(values), values).unflatten(-1, self.sides)

    def _flat_places(self, like: Tensor) -> Tensor:
        rows, columns = self.sizes.places.to(like.device).unbind(-1)
        return rows * self.sides[1] + columns
