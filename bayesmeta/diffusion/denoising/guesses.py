"""Guesses of theta in its own units: what a Gaussian would guess, and what the network adds through the gates."""

from collections.abc import Callable

from torch import Tensor

from bayesmeta.diffusion.denoising.denoiser import AtLevel, network_scale

__all__ = ["guesses"]


def guesses(
    module: AtLevel, levels: Tensor, gates: Tensor, into: Tensor, out_of: Tensor
) -> Callable[[Tensor, int], Tensor]:
    """Of u `(..., k)` at a level, about the mean of theta `(..., k)`.

    What the network sees and says is computed in its own dtype, in units of the widest value of theta; the rest is not.

    Args:
        levels: of noise `(s,)`.
        gates: worth of its answers `(s, r)`.
        into: from theta to what it sees `(k, r)`.
        out_of: from what it says to theta `(r, k)`.
    """
    dtype, unit = next(module.parameters()).dtype, float(out_of.square().sum(0).max().sqrt())
    seen = (into * unit).to(dtype)
    said = [(worth * network_scale(level))[:, None] * out_of / unit for worth, level in zip(gates, levels, strict=True)]
    is_asked = (gates > 0.0).any(-1).tolist()
    networks = [module.between(seen, each.to(dtype), level.to(dtype)) for each, level in zip(said, levels, strict=True)]

    def guess(u: Tensor, level: int) -> Tensor:
        gaussian = u * float(1.0 / (1.0 + levels[level].square()))
        if not is_asked[level]:
            return gaussian
        return gaussian.add_(networks[level]((u / unit).to(dtype)), alpha=unit)

    return guess
