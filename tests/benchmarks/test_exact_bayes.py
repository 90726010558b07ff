"""Exact Bayes of the benchmark of neural processes, against SciPy's densities and a grid by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from benchmarks.neural_processes.exact import exact_scores, midpoints
from benchmarks.neural_processes.processes import NOISE, ProcessStream, rbf
from tests.seeds import seed


def correlation(difference: Tensor, point: Tensor) -> Tensor:
    return rbf(difference, point[0])


def densities(x: Tensor, y: Tensor, num_known: int, lengthscale: float, scale: float) -> tuple[float, float, Tensor]:
    """Log evidence of the known rows, of all rows, and mean and variance of the others."""
    cov = scale**2 * rbf(x[:, None] - x, torch.tensor(lengthscale, dtype=torch.float64)).numpy() + NOISE**2 * np.eye(
        len(x)
    )
    known, rest = cov[:num_known, :num_known], cov[num_known:, :num_known]
    whole = scipy.stats.multivariate_normal(np.zeros(len(x)), cov).logpdf(y.numpy())
    first = scipy.stats.multivariate_normal(np.zeros(num_known), known).logpdf(y[:num_known].numpy())
    gain = rest @ np.linalg.inv(known)
    var = np.diag(cov[num_known:, num_known:] - gain @ rest.T)
    return first, whole, torch.stack([torch.tensor(gain @ y[:num_known].numpy()), torch.tensor(var)])


def test_scores_are_those_of_the_mixture_over_the_grid() -> None:
    tasks = ProcessStream("rbf").draw(2, 9, generator=seed(1))
    grid, scales = midpoints(0.1, 0.6, 3)[:, None], midpoints(0.1, 1.0, 2)
    x, y, n = tasks.x[..., 0], tasks.y, 5
    found = exact_scores(correlation, grid, scales, NOISE, (x[:, :n], y[:, :n]), (x[:, n:], y[:, n:]))
    for task in range(2):
        each = [densities(x[task], y[task], n, float(a), float(b)) for a in grid[:, 0] for b in scales]
        first, whole = (torch.tensor([e[i] for e in each]) for i in range(2))
        weight = first.softmax(0)[:, None]
        mean, var = torch.stack([e[2] for e in each]).unbind(1)
        together = float(whole.logsumexp(0) - first.logsumexp(0))
        assert float(found.together[task]) == pytest.approx(together, rel=1e-6)
        middle = (weight * mean).sum(0)
        spread = (weight * (var + (mean - middle).square())).sum(0)
        normal = torch.distributions.Normal(middle, spread.sqrt()).log_prob(y[task, n:])
        torch.testing.assert_close(found.normal[task], normal, rtol=1e-6, atol=1e-6)
        alone = torch.distributions.Normal(mean, var.sqrt()).log_prob(y[task, n:])
        torch.testing.assert_close(found.alone[task], (weight.log() + alone).logsumexp(0), rtol=1e-6, atol=1e-6)


def test_moments_of_a_stream_are_those_of_its_process() -> None:
    stream = ProcessStream("rbf", (0.3, 0.3), (0.7, 0.7))
    tasks, moments = stream.draw_with_moments(3, 6, 2, generator=seed(2))
    for task in range(3):
        x, y = tasks.x[task, :, 0], tasks.y[task]
        for num_known in (1, 4, 6):
            some = torch.cat([torch.arange(num_known), torch.tensor([6, 7])])
            _, _, (mean, var) = densities(x[some], y[some], num_known, 0.3, 0.7)
            torch.testing.assert_close(moments.mean[task, :, num_known], mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(moments.var[task, :, num_known], var, rtol=1e-5, atol=1e-6)
        assert moments.var[task, 0, 0] == pytest.approx(0.49 + NOISE**2, rel=1e-6)
        assert moments.mean[task, 0, 0] == 0.0


def test_midpoints_stand_for_equal_parts() -> None:
    points = midpoints(1.0, 3.0, 4)
    assert points.tolist() == [1.25, 1.75, 2.25, 2.75]
    assert math.isclose(float(points.mean()), 2.0)
