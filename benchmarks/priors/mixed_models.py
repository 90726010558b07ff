"""The hierarchical linear regression against statsmodels' MixedLM: the same maximum of the likelihood, and how fast.

    y = x w + e,  w ~ N(loc, covariance) for each group,  e ~ N(0, noise_var)

`LinearGaussian.fit(hyperprior_weight=0)` and `MixedLM(...).fit(reml=False)` with a random effect for each column of x
maximise the same likelihood.
"""

import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesmeta import Data, LinearGaussian
from bayesmeta.random import randn
from benchmarks.report import MissingPeerError

__all__ = ["Fit", "disagreement", "fit_ours", "fit_statsmodels", "simulate", "timed_against"]


THEIR_REPEATS = 3


@dataclass(frozen=True)
class Fit:
    """What either side found, its log likelihood, and the CPU seconds it took."""

    loc: np.ndarray
    covariance: np.ndarray
    noise_var: float
    log_likelihood: float
    seconds: float


def simulate(num_tasks: int, *, d: int = 5, n: int = 50, seed: int = 0) -> Data:
    """Groups with an intercept and d - 1 standard normal inputs."""
    generator, like = torch.Generator().manual_seed(seed), torch.zeros((), dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return randn(shape, like=like, generator=generator)

    x = normal(num_tasks, n, d)
    x[..., 0] = 1.0
    root = 0.5 * normal(d, d) + torch.eye(d).double()
    weights = normal(d) + normal(num_tasks, d) @ root.mT
    return Data.of(x, (x @ weights[..., None])[..., 0] + 0.8 * normal(num_tasks, n))


def fit_ours(tasks: Data, *, repeats: int) -> Fit:
    """The whole of it, from rows to prior: the least over `repeats`, as neighbours on a machine only add to it."""
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        prior = LinearGaussian.initial(tasks).fit(tasks, hyperprior_weight=0.0)
        seconds.append(time.thread_time() - start)
    covariance = torch.linalg.inv(prior.precision)
    value = float(prior.log_evidence(tasks).sum())
    return Fit(prior.loc.numpy(), covariance.numpy(), float(prior.noise_var), value, min(seconds))


def fit_statsmodels(tasks: Data, *, method: str = "lbfgs") -> Fit:
    """The fit alone is timed, not the building of the model; of its optimisers lbfgs was the fastest here.

    Raises:
        MissingPeerError: statsmodels is not installed.
    """
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM
    except ImportError as error:
        raise MissingPeerError("statsmodels is not installed; make bench-setup installs it") from error
    x, y = tasks.x[tasks.mask].numpy(), tasks.y[tasks.mask].numpy()
    groups = np.repeat(np.arange(len(tasks.mask)), tasks.count.numpy())
    model = MixedLM(y, x, groups=groups, exog_re=x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of covariances near singular on the way
        start = time.thread_time()
        found = model.fit(reml=False, method=method)
        seconds = time.thread_time() - start
    return Fit(np.asarray(found.fe_params), np.asarray(found.cov_re), float(found.scale), float(found.llf), seconds)


def disagreement(left: Fit, right: Fit) -> float:
    """The largest difference: loc and covariances in standard deviations of the weights, noise_var relative."""
    scale = np.sqrt(np.diag(left.covariance))
    loc = np.abs(left.loc - right.loc) / scale
    covariance = np.abs(left.covariance - right.covariance) / np.outer(scale, scale)
    return float(max(loc.max(), covariance.max(), abs(right.noise_var / left.noise_var - 1.0)))


def timed_against(num_tasks: int, *, repeats: int) -> tuple[float, float, Fit, Fit]:
    """Times faster, disagreement, and both fits, ours timed before and after statsmodels as its machine may be shared.

    Raises:
        AssertionError: the fits differ by more than 1e-3, so that a ratio would mean nothing.
    """
    tasks = simulate(num_tasks)
    before = fit_ours(tasks, repeats=repeats)
    theirs = min((fit_statsmodels(tasks) for _ in range(THEIR_REPEATS)), key=lambda fit: fit.seconds)
    after = fit_ours(tasks, repeats=repeats)
    apart = disagreement(after, theirs)
    if apart > 1e-3:
        raise AssertionError(f"the two maximum-likelihood fits differ by {apart:.2g}, more than 1e-3")
    return theirs.seconds / min(before.seconds, after.seconds), apart, after, theirs
