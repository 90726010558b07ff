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

__all__ = ["LOGISTIC", "POISSON", "Likelihood"]

LARGEST_LOG_RATE = 40.0  # no count comes near; above, the rate goes on as a parabola, which Newton's method can leave


@dataclass(frozen=True)
class Likelihood:
    """log p(y | eta) of rows, elementwise.

    Args:
        partition: A, of eta.
        slope: first derivative of log p by eta, given eta, y and trials.
        curvature: second derivative of A, above zero.
        third, fourth: further derivatives of A.
        base: c, given y and trials.
        guess: weights of the rows and their products with eta, from y and trials alone, where Newton's method starts.
    """

    partition: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    third: Callable[[Tensor], Tensor]
    fourth: Callable[[Tensor], Tensor]
    base: Callable[[Tensor, Tensor], Tensor]
    guess: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def log_prob(self, eta: Tensor, y: Tensor, trials: Tensor) -> Tensor:
        return y * eta - trials * self.partition(eta) + self.base(y, trials)


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
    slope=_logistic_slope,
    curvature=_logistic_curvature,
    third=_logistic_third,
    fourth=_logistic_fourth,
    base=_log_choose,
    guess=lambda y, trials: (0.25 * trials, y - 0.5 * trials),
)
POISSON = Likelihood(
    partition=_poisson_partition,
    slope=_poisson_slope,
    curvature=_poisson_curvature,
    third=_poisson_third,
    fourth=_poisson_third,
    base=lambda y, trials: -torch.lgamma(y + 1.0),
    guess=_poisson_guess,
)
