r"""What rows say of a linear predictor: exponential families with their canonical link, zeros and ones, or counts.

$$ \log p(y \mid \eta) = y \eta - n A(\eta) + c(y, n), $$

n being the number of trials of a binomial count, one for zeros and ones and for Poisson counts, and zero for a row that
says nothing. A is convex, so a posterior under a normal prior has one mode.

Source: McCullagh and Nelder, Generalized linear models, 2nd ed. (1989), section 2.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LOGISTIC", "POISSON", "Likelihood", "sums_of_axes"]

ROWS_AT_ONCE = 12  # probabilities that are multiplied before a logarithm is taken
LARGEST_IN_SUMS = 18.0  # a log rate above which rates differ by less than their rounding
LARGEST_EXPONENT = 700.0  # whose exponential is still a number
LARGEST_LOG_RATE = 40.0  # no count comes near; above, the rate goes on as a parabola, which Newton's method can leave


@dataclass(frozen=True)
class Likelihood:
    """log p(y | eta) of rows, elementwise.

    Args:
        partition: A, of eta.
        rise: A(eta + move) - A(eta), and the slope of A there, given eta and move: with digits that differences lose.
        rises: sums over rows of trials times the rise, less y times the move, where moves are sums of one value of each
            axis: of `(tasks, d, k, n)` moves `(tasks, k^d)`, the last axis fastest; None where that would overflow.
        slope: first derivative of log p by eta, given eta, y and trials.
        curvature: second derivative of A, above zero.
        third, fourth: further derivatives of A.
        base: c, given y and trials.
        guess: weights of the rows and their products with eta, from y and trials alone, where Newton's method starts.
    """

    partition: Callable[[Tensor], Tensor]
    rise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rises: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor | None]
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    third: Callable[[Tensor], Tensor]
    fourth: Callable[[Tensor], Tensor]
    base: Callable[[Tensor, Tensor], Tensor]
    guess: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def log_prob(self, eta: Tensor, y: Tensor, trials: Tensor) -> Tensor:
        return y * eta - trials * self.partition(eta) + self.base(y, trials)


def _logistic_rise(eta: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    low = move.clamp(max=LARGEST_EXPONENT)
    odds = eta.sigmoid() * low.exp()
    total = ((-eta).sigmoid() + odds).clamp(min=torch.finfo(eta.dtype).tiny)
    return total.log() + (move - low), odds / total


def sums_of_axes(values: Tensor) -> Tensor:
    """Sums of one value from each axis, of values `(tasks, d, k)`: `(tasks, k^d)`, the last axis fastest."""
    first, *more = values.unbind(1)
    for one in more:
        first = (first[:, :, None] + one[:, None]).flatten(1, 2)
    return first


def _outer(moves: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of the moves of all axes but the last together `(tasks, k^(d - 1), n)`, and of the last."""
    first, *more, last = moves.exp().unbind(1)
    for one in more:
        first = (first[:, :, None] * one[:, None]).flatten(1, 2)
    return first, last


def _logistic_rises(eta: Tensor, y: Tensor, trials: Tensor, moves: Tensor) -> Tensor | None:
    binary = bool((trials <= 1.0).all())
    sign = 1.0 - 2.0 * y if binary else torch.ones_like(y)  # towards the class that the row is not of
    first, last = _outer(moves * sign[:, None, None])
    wrong = (sign * eta).sigmoid().where(trials > 0, 0.0)
    right = (-sign * eta).sigmoid().where(trials > 0, 1.0)
    shape = (len(eta), first.shape[1], last.shape[1])
    product, total = eta.new_ones(shape), eta.new_zeros(shape)
    first = first * wrong[:, None]
    for i in range(eta.shape[-1]):
        each = torch.addcmul(right[:, i, None, None], first[:, :, i, None], last[:, None, :, i])
        if not binary:
            total += trials[:, i, None, None] * each.log()
            continue
        product *= each
        if i % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
            total += product.log()
            product.fill_(1.0)
    total += product.log()
    total = total.flatten(1) if binary else total.flatten(1) - sums_of_axes((moves @ y[:, None, :, None])[..., 0])
    return total if bool(total.isfinite().all()) else None


def _logistic_slope(eta: Tensor, y: Tensor, trials: Tensor) -> Tensor:
    # y - trials sigmoid(eta), with all digits where they agree
    return y * (-eta).sigmoid() - (trials - y) * eta.sigmoid()


def _logistic_curvature(eta: Tensor) -> Tensor:
    return eta.sigmoid() * (-eta).sigmoid()


def _logistic_third(eta: Tensor) -> Tensor:
    return -_logistic_curvature(eta) * (0.5 * eta).tanh()


def _logistic_fourth(eta: Tensor) -> Tensor:
    curvature = _logistic_curvature(eta)
    return curvature * (1.0 - 6.0 * curvature)


def _log_choose(y: Tensor, trials: Tensor) -> Tensor:
    return torch.lgamma(trials + 1.0) - torch.lgamma(y + 1.0) - torch.lgamma(trials - y + 1.0)


def _poisson_partition(eta: Tensor) -> Tensor:
    low = eta.clamp(max=LARGEST_LOG_RATE)
    beyond = eta - low
    return low.exp() * (1.0 + beyond + 0.5 * beyond.square())


def _poisson_rise(eta: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    rate, more = eta.exp(), torch.expm1(move)
    if bool((eta + move < LARGEST_LOG_RATE).all()):
        return rate * more, rate * (more + 1.0)
    to = eta + move
    low = to.clamp(max=LARGEST_LOG_RATE)
    usual = (to < LARGEST_LOG_RATE) & (eta < LARGEST_LOG_RATE)
    rise = torch.where(usual, rate * more, _poisson_partition(to) - _poisson_partition(eta))
    return rise, low.exp() * (1.0 + (to - low))


def _poisson_rises(eta: Tensor, y: Tensor, trials: Tensor, moves: Tensor) -> Tensor | None:
    if bool((eta > LARGEST_IN_SUMS).any()):
        return None
    first, last = _outer(moves)
    rate = trials * eta.exp()
    total = ((first * rate[:, None]) @ last.mT).flatten(1) - rate.sum(-1, keepdim=True)
    total = total - sums_of_axes((moves @ y[:, None, :, None])[..., 0])
    return total if bool(total.isfinite().all()) else None


def _poisson_slope(eta: Tensor, y: Tensor, trials: Tensor) -> Tensor:
    low = eta.clamp(max=LARGEST_LOG_RATE)
    return y - trials * low.exp() * (1.0 + (eta - low))


def _poisson_curvature(eta: Tensor) -> Tensor:
    return eta.clamp(max=LARGEST_LOG_RATE).exp()


def _poisson_third(eta: Tensor) -> Tensor:
    return eta.exp().where(eta < LARGEST_LOG_RATE, 0.0)


def _poisson_guess(y: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
    weight = (y + 0.5) * trials
    return weight, weight * (y + 0.5).log()


LOGISTIC = Likelihood(
    partition=lambda eta: softplus(eta, threshold=40.0),
    rise=_logistic_rise,
    rises=_logistic_rises,
    slope=_logistic_slope,
    curvature=_logistic_curvature,
    third=_logistic_third,
    fourth=_logistic_fourth,
    base=_log_choose,
    guess=lambda y, trials: (0.25 * trials, y - 0.5 * trials),
)
POISSON = Likelihood(
    partition=_poisson_partition,
    rise=_poisson_rise,
    rises=_poisson_rises,
    slope=_poisson_slope,
    curvature=_poisson_curvature,
    third=_poisson_third,
    fourth=_poisson_third,
    base=lambda y, trials: -torch.lgamma(y + 1.0),
    guess=_poisson_guess,
)
