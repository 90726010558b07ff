"""Do intervals of a learned prior cover? New tasks from laws of hyperparameters that the library does not know.

A replication draws true hyperparameters from a broad law, which is written down here and is not the library's
hyperprior, then past tasks to learn from and new tasks to predict. A 90% interval is either of a new row, where rows
are continuous, or of the task's probability or rate, where rows are counts and one of them says little.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

import bayesmeta as bm
from bayesmeta import Data, Hyperposterior, LimitWarning
from bayesmeta.checks.predictive_checks import TaskMean
from bayesmeta.random import gamma, rand, randn, seeded

__all__ = ["SIMULATIONS", "Coverage", "Simulation", "inside", "measure"]

LEVEL = 0.9
NUM_DRAWS = 99  # of a prediction; the rank among them, with ties at random, is uniform for any number
SEEN = 3  # rows of a new task before its second interval
NUM_ARMS = 4
F64 = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Simulation:
    """How tasks of one family come about.

    Args:
        draw_prior: a true prior, hyperparameters drawn from their law.
        draw_x: inputs of the given shape of tasks and rows.
        num_rows: of a past task.
        of_rows: intervals are of new rows rather than of the function.
        hyper_draws: of the hyperposterior.
        cost: of a replication; costly families have fewer of them, with more new tasks in each.
    """

    draw_prior: Callable[[Generator], Any]
    draw_x: Callable[[tuple[int, int], Generator], Tensor]
    num_rows: int
    of_rows: bool
    hyper_draws: int = 500
    cost: int = 1


@dataclass(frozen=True)
class Coverage:
    """Shares of new tasks inside their intervals, one number per replication.

    Args:
        each: one interval per task, of half of the tasks before their first row and of the others after three.
        before: before the first row.
        after: after three rows.
        failed: replications in which no prior was found, left out.
    """

    each: TaskMean
    before: TaskMean
    after: TaskMean
    failed: int


def measure(
    simulation: Simulation, *, num_tasks: int, num_new: int, replications: int, plain: bool, seed: int
) -> Coverage:
    """Coverage with `num_tasks` past tasks and `num_new` new ones, over replications of both.

    Args:
        plain: by plain empirical Bayes, in place of the prior with its hyperparameters integrated out.
        seed: the same simulated tasks for the same seed, whether `plain` or not.
    """
    results, failed = [], 0
    for r in range(replications):
        generator = torch.Generator().manual_seed(1_000_003 * seed + r)
        truth = simulation.draw_prior(generator)
        past, _ = simulate(simulation, truth, num_tasks, simulation.num_rows, generator)
        new, function = simulate(simulation, truth, num_new, SEEN + 1, generator)
        try:
            prior = learn(type(truth), past, plain, simulation.hyper_draws, generator)
        except ValueError:
            failed += 1
            continue
        target = new.rows(slice(SEEN, None))
        posteriors = [prior.condition(new.rows(slice(n))) for n in (0, SEEN)]
        value = target.y if simulation.of_rows else function
        results.append([inside(p, target.x, value, simulation.of_rows, generator) for p in posteriors])
    shares = torch.stack([torch.stack(pair) for pair in results])  # replications, before and after, new tasks
    one_each = torch.cat([shares[:, 0, ::2], shares[:, 1, 1::2]], -1)
    means = (TaskMean(part.mean(-1)) for part in (one_each, shares[:, 0], shares[:, 1]))
    return Coverage(*means, failed)


def simulate(
    simulation: Simulation, truth: Any, num_tasks: int, num_rows: int, generator: Generator
) -> tuple[Data, Tensor]:
    """Tasks drawn from `truth`, and their functions at the last row, `(tasks, 1, *event)`."""
    x = simulation.draw_x((num_tasks, num_rows), generator)
    nothing = Data(x[:, :0], F64.new_zeros(num_tasks, 0, *truth.event_shape), torch.ones(num_tasks, 0).bool())
    functions = truth.condition(nothing).sample(1, generator=generator)
    with seeded(generator):
        y = functions.predict(x).sample()[0]
    return Data.of(x, y, event_dim=len(truth.event_shape)), functions(x[:, -1:])[0]


def learn(family: Any, past: Data, plain: bool, hyper_draws: int, generator: Generator) -> Any:
    """The prior learned from past tasks, hyperparameters integrated out or, if `plain`, estimated by the evidence."""
    initial = family.initial(past)
    if not plain:
        return Hyperposterior.fit(initial, past, num_draws=hyper_draws, generator=generator).marginal(
            generator=generator
        )
    with warnings.catch_warnings():
        # that hyperparameters run to their limits is what is shown here
        warnings.simplefilter("ignore", LimitWarning)
        return initial.fit(past, hyperprior_weight=0.0)


def inside(posterior: Any, x: Tensor, value: Tensor, of_rows: bool, generator: Generator) -> Tensor:
    """Whether `value` `(tasks, 1, *event)` lies in the central 90% of its prediction: shares of outputs, `(tasks,)`."""
    if of_rows:
        with seeded(generator):
            draws = posterior.predict(x).sample(torch.Size([NUM_DRAWS]))
    else:
        draws = posterior.sample(NUM_DRAWS, generator=generator)(x)
    below, ties = (draws < value).sum(0), (draws == value).sum(0)
    rank = (below + (ties + 1) * rand(below.shape, like=F64, generator=generator)) / (NUM_DRAWS + 1)
    return ((rank - 0.5).abs() < 0.5 * LEVEL).double().flatten(1).mean(-1)


def _between(low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    """Uniform on a logarithmic scale."""
    share = rand(shape, like=F64, generator=generator)
    return (math.log(low) + share * math.log(high / low)).exp()


def _normal(generator: Generator, *shape: int) -> Tensor:
    return randn(shape, like=F64, generator=generator)


def _covariance(d: int, low: float, high: float, generator: Generator) -> Tensor:
    """Standard deviations between `low` and `high`, correlations of a Wishart matrix with d + 2 degrees of freedom."""
    root = _normal(generator, d, d + 2)
    square = root @ root.mT
    scale = _between(low, high, generator, d) / square.diagonal().sqrt()
    return scale[:, None] * square * scale


def _precision(d: int, low: float, high: float, generator: Generator) -> Tensor:
    inverse = torch.linalg.inv(_covariance(d, low, high, generator))
    return 0.5 * (inverse + inverse.mT)


def _beta_bernoulli(generator: Generator) -> bm.BetaBernoulli:
    mean = 0.1 + 0.8 * rand((), like=F64, generator=generator)
    total = _between(1.0, 30.0, generator)
    return bm.BetaBernoulli(total * mean, total * (1.0 - mean))


def _dirichlet_categorical(generator: Generator) -> bm.DirichletCategorical:
    share = gamma((4,), F64 + 2.0, generator=generator)
    return bm.DirichletCategorical(_between(2.0, 50.0, generator) * share / share.sum())


def _gamma_poisson(generator: Generator) -> bm.GammaPoisson:
    mean, shape = _between(0.5, 20.0, generator), _between(0.5, 20.0, generator)
    return bm.GammaPoisson(shape, shape / mean)


def _gamma_exponential(generator: Generator) -> bm.GammaExponential:
    mean, shape = _between(0.1, 10.0, generator), _between(1.0, 30.0, generator)
    return bm.GammaExponential(shape, shape / mean)


def _normal_known_variance(generator: Generator) -> bm.NormalKnownVariance:
    return bm.NormalKnownVariance(10.0 * _normal(generator), _between(0.1, 10.0, generator), F64 + 1.0)


def _normal_inverse_gamma(generator: Generator) -> bm.NormalInverseGamma:
    var, concentration = _between(0.1, 10.0, generator), _between(1.5, 20.0, generator)
    pseudo_count = _between(0.1, 10.0, generator)
    return bm.NormalInverseGamma(10.0 * _normal(generator), pseudo_count, concentration, concentration * var)


def _normal_inverse_wishart(generator: Generator) -> bm.NormalInverseWishart:
    df = 1.0 + _between(2.0, 40.0, generator)
    scatter = df * _covariance(2, 0.3, 3.0, generator)
    return bm.NormalInverseWishart(10.0 * _normal(generator, 2), _between(0.1, 10.0, generator), df, scatter)


def _linear_gaussian(generator: Generator) -> bm.LinearGaussian:
    noise_var = _between(0.1, 10.0, generator)
    return bm.LinearGaussian(2.0 * _normal(generator, 3), _precision(3, 0.3, 3.0, generator), noise_var)


def _linear_normal_inverse_gamma(generator: Generator) -> bm.LinearNormalInverseGamma:
    concentration = _between(1.5, 20.0, generator)
    rate = concentration * _between(0.1, 10.0, generator)
    loc, precision = 2.0 * _normal(generator, 3), _precision(3, 0.3, 3.0, generator)
    return bm.LinearNormalInverseGamma(loc, precision, concentration, rate)


def _matrix_normal_inverse_wishart(generator: Generator) -> bm.MatrixNormalInverseWishart:
    df = 1.0 + _between(2.0, 40.0, generator)
    scatter = df * _covariance(2, 0.3, 3.0, generator)
    loc, precision = 2.0 * _normal(generator, 2, 2), _precision(2, 0.3, 3.0, generator)
    return bm.MatrixNormalInverseWishart(loc, precision, df, scatter)


def _logistic_gaussian(generator: Generator) -> bm.LogisticGaussian:
    return bm.LogisticGaussian(_normal(generator, 2), _precision(2, 0.3, 2.0, generator))


def _poisson_gaussian(generator: Generator) -> bm.PoissonGaussian:
    loc = torch.tensor([0.5, 1.0], dtype=torch.float64) * _normal(generator, 2)
    return bm.PoissonGaussian(loc, _precision(2, 0.2, 1.0, generator))


def _poisson_exposure_gaussian(generator: Generator) -> bm.PoissonExposureGaussian:
    truth = _poisson_gaussian(generator)
    return bm.PoissonExposureGaussian(truth.loc, truth.precision)


def _correlated_arms(generator: Generator) -> bm.CorrelatedArms:
    noise_var = _between(0.1, 10.0, generator)
    scale_tril = torch.linalg.cholesky(_covariance(NUM_ARMS, 0.3, 3.0, generator))
    return bm.CorrelatedArms(2.0 * _normal(generator, NUM_ARMS), scale_tril, noise_var)


def _no_inputs(shape: tuple[int, int], generator: Generator) -> Tensor:
    return F64.new_zeros(*shape, 0)


def _variances(shape: tuple[int, int], generator: Generator) -> Tensor:
    return _between(0.3, 3.0, generator, *shape, 1)


def _inputs(d: int) -> Callable[[tuple[int, int], Generator], Tensor]:
    """Standard normal columns, the last an intercept."""

    def draw(shape: tuple[int, int], generator: Generator) -> Tensor:
        x = _normal(generator, *shape, d)
        x[..., -1] = 1.0
        return x

    return draw


def _exposures(shape: tuple[int, int], generator: Generator) -> Tensor:
    """Inputs, and the logarithm of an exposure that differs between rows by factors."""
    return torch.cat([_inputs(2)(shape, generator), _normal(generator, *shape, 1)], -1)


def _arms(shape: tuple[int, int], generator: Generator) -> Tensor:
    """An arm at random in each row: some tasks do not show every arm."""
    return (NUM_ARMS * rand((*shape, 1), like=F64, generator=generator)).floor()


SIMULATIONS = {
    "beta_bernoulli": Simulation(_beta_bernoulli, _no_inputs, 10, False),
    "dirichlet_categorical": Simulation(_dirichlet_categorical, _no_inputs, 10, False),
    "gamma_poisson": Simulation(_gamma_poisson, _no_inputs, 5, False),
    "gamma_exponential": Simulation(_gamma_exponential, _no_inputs, 10, True),
    "normal_known_variance": Simulation(_normal_known_variance, _variances, 3, True),
    "normal_inverse_gamma": Simulation(_normal_inverse_gamma, _no_inputs, 10, True),
    "normal_inverse_wishart": Simulation(_normal_inverse_wishart, _no_inputs, 10, True),
    "linear_gaussian": Simulation(_linear_gaussian, _inputs(3), 10, True),
    "linear_normal_inverse_gamma": Simulation(_linear_normal_inverse_gamma, _inputs(3), 10, True),
    "matrix_normal_inverse_wishart": Simulation(_matrix_normal_inverse_wishart, _inputs(2), 10, True),
    "logistic_gaussian": Simulation(_logistic_gaussian, _inputs(2), 20, False, hyper_draws=200, cost=2),
    "poisson_gaussian": Simulation(_poisson_gaussian, _inputs(2), 10, False, hyper_draws=200, cost=2),
    "poisson_exposure_gaussian": Simulation(_poisson_exposure_gaussian, _exposures, 10, False, hyper_draws=200, cost=2),
    "correlated_arms": Simulation(_correlated_arms, _arms, 10, True),
}
