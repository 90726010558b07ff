r"""Increasing functions through knots, by rational quadratics: smooth, and with an inverse in closed form.

Source: Gregory and Delbourgo, Piecewise rational quadratic interpolation to monotonic data (1982).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Increasing"]


@dataclass(frozen=True)
class Increasing:
    """y of x, straight beyond the first and the last of k knots.

    Args:
        x: of the knots, increasing `(k,)`.
        y: of the knots, increasing `(*batch, k)`.
        slope: there, above zero `(*batch, k)`.
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def through(cls, x: Tensor, y: Tensor) -> "Increasing":
        """Curve through points, with slopes that are harmonic means of those to both neighbours."""
        width = x.diff()
        chord = (y.diff(dim=-1) / width).clamp(min=torch.finfo(y.dtype).tiny)
        left, right = chord[..., :-1], chord[..., 1:]
        inner = (width[:-1] + width[1:]) / (width[1:] / left + width[:-1] / right)
        return cls(x, y, torch.cat([chord[..., :1], inner, chord[..., -1:]], -1))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and dy/dx at x `(*batch,)`."""
        index = torch.searchsorted(self.x, x.detach().contiguous()).clamp(1, len(self.x) - 1) - 1
        start, width, low, high, slope_low, slope_high = self._piece(index, x.shape)
        raw = (x - start) / width
        share = raw.clamp(0.0, 1.0)
        chord, mixed = (high - low) / width, share * (1.0 - share)
        below = chord + (slope_low + slope_high - 2.0 * chord) * mixed
        y = low + (high - low) * (chord * share.square() + slope_low * mixed) / below
        slope = slope_high * share.square() + 2.0 * chord * mixed + slope_low * (1.0 - share).square()
        slope = chord.square() * slope / below.square()
        beyond = torch.where(raw == share, 0.0, (raw - share) * width * slope)  # infinity times zero is none
        return y + beyond, slope

    def inverse(self, y: Tensor) -> Tensor:
        """x at y `(*batch,)`."""
        shape = torch.broadcast_shapes(y.shape, self.y.shape[:-1])
        y = y.expand(shape)
        index = ((self.y <= y[..., None]).sum(-1) - 1).clamp(0, len(self.x) - 2)
        start, width, low, high, slope_low, slope_high = self._piece(index, shape)
        chord, rise = (high - low) / width, torch.minimum(torch.maximum(y, low), high) - low
        excess = rise * (slope_low + slope_high - 2.0 * chord)
        a = (high - low) * (chord - slope_low) + excess
        b = (high - low) * slope_low - excess
        c = -chord * rise
        share = -2.0 * c / (b + (b.square() - 4.0 * a * c).clamp(min=0.0).sqrt()).clamp(min=torch.finfo(y.dtype).tiny)
        x = start + width * share.clamp(0.0, 1.0)
        below, above = (y - low).clamp(max=0.0), (y - high).clamp(min=0.0)
        return x + torch.where(y < low, below / slope_low, 0.0) + torch.where(y > high, above / slope_high, 0.0)

    def _piece(self, index: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
        """Starts of the pieces, their widths, and y and slopes at both ends."""
        index = index.expand(shape)
        y, slope = self.y.expand(*shape, -1), self.slope.expand(*shape, -1)
        at = index[..., None]
        ends = (v.gather(-1, i)[..., 0] for v in (y, slope) for i in (at, at + 1))
        return self.x[index], self.x[index + 1] - self.x[index], *ends
