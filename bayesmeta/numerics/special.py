"""Special functions that lose digits where they are written as differences."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["lgamma_ratio", "of_counts", "softplus_sum"]

FACTORS = 20  # of a product: each may be as large as exp(35)
LARGE = 30.0  # from here on, five terms of Stirling's series are exact to the last digit of float64


def lgamma_ratio(a: Tensor, n: Tensor) -> Tensor:
    """log Gamma(a + n) - log Gamma(a) for a > 0 and n >= 0, of the broadcast shape, exact where a is far above n.

    The difference of two values of log Gamma loses the digits that they share: at a = 1e12, all of them.

    Source: Stirling's series, Abramowitz and Stegun (1964), equation 6.1.40.
    """
    # a fused kernel has one way through for all values
    if not torch.compiler.is_compiling() and not (a > LARGE).any():
        return (a + n).lgamma() - a.lgamma()
    a, n = torch.broadcast_tensors(a, n)
    large = a > LARGE
    # both branches see harmless values where the other one is taken, so that gradients stay finite
    big, small = a.where(large, LARGE), a.where(~large, 1.0)
    total = big + n
    # (a + n - 1/2) log(a + n) - (a - 1/2) log a - n, without the difference of large terms
    leading = (big - 0.5) * torch.log1p(n / big) + n * (total.log() - 1.0)
    by_series = leading + _stirling(total) - _stirling(big)
    return torch.where(large, by_series, (small + n).lgamma() - small.lgamma())


def of_counts(function: Callable[[Tensor], Tensor], count: Tensor) -> Tensor:
    """`function(count)`, evaluated once per whole number where tasks are many and their counts few.

    Args:
        function: of counts `(m,)`, elementwise, of shape `(*draws, m)`.
        count: `(tasks,)`; where it is of another shape, or holds a fraction, it goes to `function` as it is.
    """
    if count.ndim != 1 or not len(count):
        return function(count)
    index, largest = count.long(), int(count.max())
    if largest >= len(count) // 2 or not bool((index == count).all()):
        return function(count)
    return function(torch.arange(largest + 1, dtype=count.dtype, device=count.device)).index_select(-1, index)


def softplus_sum(eta: Tensor) -> Tensor:
    """Sum over the second to last axis of log(1 + exp(eta)), for float64; `eta` is overwritten.

    One logarithm is taken of the product of twenty numbers. Where such a product is beyond the floats, it is infinite.
    """
    product = eta.exp_().add_(1.0)
    total = product.new_zeros(*eta.shape[:-2], eta.shape[-1])
    for part in product.split(FACTORS, -2):
        total += part.prod(-2).log_()
    return total


def _stirling(z: Tensor) -> Tensor:
    """What Stirling's formula leaves of log Gamma(z)."""
    inverse = z.reciprocal()
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
