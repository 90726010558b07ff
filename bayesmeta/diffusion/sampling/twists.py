"""A Gaussian guess of theta, and what rows make of it: how probable they are under it, and what they leave of it."""

from functools import cached_property

import torch
from torch import Tensor

from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.numerics.linalg import cholesky

__all__ = ["Twist"]


class Twist:
    """Guesses N(mean, cov) of theta, one mean for each particle and one covariance for all, met with rows.

    Args:
        rows: of tasks.
        cov: `(k, k)`.
    """

    def __init__(self, rows: Observations, cov: Tensor) -> None:
        self.rows, self.cov = rows, cov
        both = rows.both(cov)
        self._factor = cholesky(both + torch.eye(both.shape[-1]).to(both), "covariance of what was observed")
        self._log_det = 2.0 * self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, mean: Tensor) -> Tensor:
        """Of the rows, short of `rows.log_unit`: mean `(b, n, k)` to `(b, n)`."""
        return self.log_prob_at(self.rows.of(mean))

    def log_prob_at(self, expected: Tensor) -> Tensor:
        """The same from what the rows are expected to be `(b, n, m)`."""
        white = torch.linalg.solve_triangular(self._factor, (self.rows.y[:, None] - expected).mT, upper=False)
        return -0.5 * (white.square().sum(-2) + self._log_det[:, None])

    def given(self, guess: Tensor, noise: Tensor | None = None) -> Tensor:
        """The guess after the rows: a mean from a mean, a draw from a draw and noise of the rows `(b, n, m)`."""
        left = self.rows.y[:, None] - self.rows.of(guess)
        left = left if noise is None else left - noise
        return guess + torch.cholesky_solve(left.mT, self._factor).mT @ self._cross

    def draw(self, mean: Tensor, prior_noise: Tensor, noise: Tensor) -> Tensor:
        """A draw of theta given the rows: see `shift`."""
        return mean + self.shift(self.rows.of(mean), prior_noise, noise)

    def shift(self, expected: Tensor, prior_noise: Tensor, noise: Tensor) -> Tensor:
        """How far a draw of theta given the rows is from the mean of its guess `(b, n, k)`.

        Args:
            expected: what the rows are by that mean `(b, n, m)`.
            prior_noise: a draw of N(0, cov) for each particle `(#b, n, k)`.
            noise: standard normal `(#b, n, k)`, of which the rows take theirs.
        """
        left = self.rows.y[:, None] - expected - self.rows.of(prior_noise) - self.rows.among(noise)
        pull = torch.cholesky_solve(left.mT, self._factor).mT
        return torch.baddbmm(prior_noise.expand(len(left), -1, -1), pull, self._cross)

    def gain(self) -> Tensor:
        """By how much theta moves with what the rows say beside the guess `(b, k, m)`."""
        return torch.cholesky_solve(self._cross, self._factor).mT

    def cov_given(self) -> Tensor:
        """Covariance of theta given the rows `(b, k, k)`."""
        half = torch.linalg.solve_triangular(self._factor, self._cross, upper=False)
        return self.cov - half.mT @ half

    @cached_property
    def _cross(self) -> Tensor:
        """H C, `(b, m, k)`."""
        return self.rows.times(self.cov)
