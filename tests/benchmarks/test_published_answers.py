"""Rat tumours and eight schools of Bayesian Data Analysis: published posteriors, exact ones, and ours by MCMC."""

import math

import arviz
import numpy as np
import pytest

import bayesmeta as bm
from benchmarks.priors import bda3
from tests.families import seed

COUNTS = """
0/20 0/20 0/20 0/20 0/20 0/20 0/20 0/19 0/19 0/19 0/19 0/18 0/18 0/17 1/20 1/20 1/20 1/20 1/19 1/19 1/18 1/18 2/25 2/24
2/23 2/20 2/20 2/20 2/20 2/20 2/20 1/10 5/49 2/19 5/46 3/27 2/17 7/49 7/47 3/20 3/20 2/13 9/48 10/50 4/20 4/20 4/20 4/20
4/20 4/20 4/20 10/48 4/19 4/19 4/19 5/22 11/46 12/49 5/20 5/20 6/23 5/19 6/22 6/20 6/20 6/20 16/52 15/46 15/47 9/24 4/14
"""
RATS = bda3.rats(*np.array([[int(n) for n in pair.split("/")] for pair in COUNTS.split()]).T)


def draws(prior, tasks, log_hyperprior):
    return bm.sample_posterior(
        prior,
        tasks,
        num_draws=120,
        num_warmup=60,
        log_hyperprior=log_hyperprior,
        progress=False,
        generator=seed(0),
    ).posterior


def z_score(values: np.ndarray, exact: float) -> float:
    """In standard errors of the mean of the chains `(chain, draw)`."""
    return (values.mean() - exact) / (values.std() / math.sqrt(arviz.ess(values, method="mean")))


def test_rat_tumours_have_the_published_posterior() -> None:
    alpha, beta = bda3.rats_means(RATS)
    assert (round(alpha, 1), round(beta, 1)) == bda3.PUBLISHED_MEANS


@pytest.mark.slow
def test_nuts_over_rat_tumours_agrees_with_quadrature() -> None:
    drawn = draws(bm.BetaBernoulli.initial(RATS), RATS, bda3.rats_log_hyperprior)
    a, b = np.asarray(drawn["successes"]), np.asarray(drawn["failures"])
    for values, exact in zip((np.log(a / b), np.log(a + b)), bda3.rats_vector_means(RATS).tolist(), strict=True):
        assert abs(z_score(values, exact)) < 5.0


def test_eight_schools_have_the_published_posterior() -> None:
    """Of forty quantiles of 200 simulated effects, one is far off in the book: 28 where 18.6 is exact."""
    z = np.abs(bda3.published_z(bda3.SchoolsPosterior()))
    far = z > 3.0
    assert far.sum() == 1
    assert far[5, 4]
    assert np.sqrt(np.mean(z[~far] ** 2)) < 1.3


@pytest.mark.slow
def test_nuts_over_eight_schools_agrees_with_the_exact_posterior() -> None:
    exact, tasks = bda3.SchoolsPosterior(), bda3.schools()
    means = np.asarray(draws(bm.NormalKnownVariance.initial(tasks), tasks, bda3.schools_log_hyperprior)["task_mean"])
    for school, expected in enumerate(exact.mean()):
        assert abs(z_score(means[..., school], expected)) < 5.0
        for share in bda3.QUANTILES[1:-1]:
            below = (means[..., school] < exact.quantile(school, share)).astype(float)
            assert abs(z_score(below, share)) < 5.0
