"""Targets as normal scores of their ranks: what makes tasks with different scales and heavy tails comparable.

A transform that depends on the rows seen is no part of a posterior, so it lives here: it is applied to all rows of a
past task before a prior is learned, and to the rows of the running study before each suggestion.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["finite_values", "normal_scores"]


def normal_scores(y: Float[Tensor, "*batch n"], mask: Bool[Tensor, "*batch n"]) -> Tensor:
    r"""$\Phi^{-1}((r - 1/2) / n)$ with r the rank among the real rows of a task, ties sharing their mean rank.

    Returns:
        `(*batch, n)` in float64, zero at pads. A single row, or rows that are all equal, score zero.
    """
    padded = y.double().masked_fill(~mask, torch.inf)
    order = padded.sort(-1).values.contiguous()
    below = torch.searchsorted(order, padded, right=False)
    up_to = torch.searchsorted(order, padded, right=True)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    quantile = (below + up_to).double() / (2 * count)
    return torch.special.ndtri(torch.where(mask, quantile, 0.5))


def finite_values(values: Iterable[float] | Tensor) -> Float[Tensor, " n"]:
    """Objectives of a study, in float64; an infinite one, which Optuna allows, counts as the last finite one."""
    y = torch.as_tensor(values if isinstance(values, Tensor) else list(values), dtype=torch.float64)
    known = y[y.isfinite()]
    return y.clamp(known.min(), known.max()) if len(known) else torch.zeros_like(y)
