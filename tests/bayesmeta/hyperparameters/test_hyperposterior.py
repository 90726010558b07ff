"""The hyperposterior: its draws against quadrature, its updates against a fit of all tasks."""

import pytest
import torch
from scipy import integrate

import bayesmeta as bm
from bayesmeta import Data, Statistics
from bayesmeta.hyperparameters.hyperposterior import Hyperposterior, laplace
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, Family, seed


def binary_tasks(num_tasks: int, n: int, number: int = 0) -> Data:
    rates = rand((num_tasks, 1), like=F64, generator=seed(number))
    return Data.of(None, (rand((num_tasks, n), like=F64, generator=seed(number + 1)) < 0.1 + 0.4 * rates).double())


TASKS = binary_tasks(6, 12)
INITIAL = bm.BetaBernoulli.initial(TASKS)


def quadrature(tasks: Data) -> tuple[float, float]:
    """Mean of the logit and of the log total under the hyperposterior of `tasks`."""
    unknown = INITIAL.hyperparameters(TASKS)
    stats = Statistics.of(tasks, order=1)

    sums = []
    logit = torch.linspace(-6.0, 3.0, 181, dtype=torch.float64)
    log_total = torch.linspace(-6.0, 9.0, 181, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(logit, log_total, indexing="ij"), -1)
    evidence = unknown.build(grid[..., None, :]).log_evidence(stats).sum(-1)
    density = evidence + unknown.log_hyperprior(grid)
    density = (density - density.max()).exp()
    for moment in (torch.ones_like(density), grid[..., 0], grid[..., 1]):
        inner = integrate.simpson((density * moment).numpy(), x=log_total)
        sums.append(float(integrate.simpson(inner, x=logit)))
    return sums[1] / sums[0], sums[2] / sums[0]


def assert_weighted_mean(posterior: Hyperposterior, expected: tuple[float, float]) -> None:
    weights, draws = posterior.log_weights.exp(), posterior.draws
    mean = (weights[:, None] * draws).sum(0)
    error = (weights.square()[:, None] * (draws - mean).square()).sum(0).sqrt()
    assert ((mean - torch.tensor(expected)).abs() < 5 * error).all()
    assert (error < 0.1).all()


def test_weighted_draws_agree_with_quadrature() -> None:
    assert_weighted_mean(Hyperposterior.fit(INITIAL, TASKS, num_draws=4000, generator=seed(0)), quadrature(TASKS))


def test_updates_of_running_tasks_agree_with_quadrature() -> None:
    posterior = Hyperposterior.fit(INITIAL, TASKS, num_draws=4000, generator=seed(0))
    running = binary_tasks(2, 20, number=5)
    for name, rows in (("a", 3), ("b", 20), ("a", 20)):
        posterior.update(name, running[0 if name == "a" else 1].rows(slice(rows)))
    both = Data.pad([(None, y) for y in [*TASKS.y, *running.y]])
    assert_weighted_mean(posterior, quadrature(both))
    posterior.renew(generator=seed(1))
    assert_weighted_mean(posterior, quadrature(both))
    assert posterior.ess > 2000


def test_an_update_replaces_what_the_task_had_shown() -> None:
    posterior = Hyperposterior.fit(INITIAL, TASKS, generator=seed(0))
    before = posterior.log_weights
    task = binary_tasks(1, 9, number=7)[0]
    posterior.update("a", task)
    once = posterior.log_weights
    posterior.update("a", task)
    torch.testing.assert_close(posterior.log_weights, once, rtol=1e-12, atol=1e-12)
    posterior.update("a", task.rows(slice(0)))
    torch.testing.assert_close(posterior.log_weights, before, rtol=1e-9, atol=1e-9)


def test_surprising_tasks_renew_the_draws() -> None:
    calm = Data.of(None, randn((40, 10), like=F64, generator=seed(2)))
    posterior = Hyperposterior.fit(bm.NormalInverseGamma.initial(calm), calm, num_draws=500, generator=seed(0))
    old = posterior.draws
    for i in range(30):
        far = 30.0 * randn((1,), like=F64, generator=seed(i)) + randn((10,), like=F64, generator=seed(100 + i))
        posterior.update(i, Data.of(None, far), generator=seed(i))
    assert posterior.draws is not old
    assert posterior.ess > 125


def test_marginal_is_a_mixture_of_priors() -> None:
    posterior = Hyperposterior.fit(INITIAL, TASKS, generator=seed(0))
    mixture = posterior.marginal(50, generator=seed(1))
    weights, means = posterior.log_weights.exp(), posterior.priors.predict().mean[:, 0]
    weighted = (weights * means).sum()
    error = (weights * (means - weighted).square()).sum().sqrt().item() / 50**0.5
    assert mixture.predict(F64.new_zeros(1, 0)).mean.item() == pytest.approx(weighted.item(), abs=5 * error)
    task = binary_tasks(3, 8, number=9)
    assert mixture.condition(task).batch_shape == (3,)
    left, right = mixture.condition(task), mixture.condition(Statistics.of(task, order=1))
    torch.testing.assert_close(left.log_weights, right.log_weights)


def test_draws_are_priors_on_the_left_of_the_batch() -> None:
    posterior = Hyperposterior.fit(INITIAL, TASKS, generator=seed(0))
    assert posterior.sample(7, generator=seed(1)).batch_shape == (7,)
    same = posterior.sample(7, generator=seed(1))
    assert torch.equal(same.successes, posterior.sample(7, generator=seed(1)).successes)


def test_a_batch_of_tasks_is_refused() -> None:
    posterior = Hyperposterior.fit(INITIAL, TASKS, generator=seed(0), num_draws=50)
    with pytest.raises(ValueError, match="statistics must be of one task"):
        posterior.update("a", TASKS.expand((2, 6)))


def test_laplace_is_exact_on_a_normal() -> None:
    precision = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    mode = torch.tensor([1.0, -1.0], dtype=torch.float64)
    root = laplace(lambda v: -0.5 * (v - mode) @ precision @ (v - mode), mode, F64.new_tensor([1.0, 3.0]))
    torch.testing.assert_close(root @ root.mT, torch.linalg.inv(precision))


HIERARCHICAL = {name: f for name, f in FAMILIES.items() if isinstance(f.prior, Hierarchical)}


@pytest.mark.parametrize("family", HIERARCHICAL.values(), ids=HIERARCHICAL.keys())
def test_evidence_of_the_vector_is_that_of_the_prior_it_builds(family: Family) -> None:
    """In the units of the rows but for factors that no prior changes, whatever units the search works in."""
    tasks = family.tasks([6, 8, 5, 9])
    unknown = family.prior.hyperparameters(tasks)
    vectors = unknown.start + 0.3 * randn((3, len(unknown.entries)), like=F64, generator=seed(1))
    difference = unknown.log_evidence(vectors) - unknown.log_evidence(unknown.start)
    expected = unknown.build(vectors[:, None]).log_evidence(tasks) - family.prior.log_evidence(tasks)
    torch.testing.assert_close(difference, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("family", HIERARCHICAL.values(), ids=HIERARCHICAL.keys())
def test_the_search_starts_at_the_prior_itself(family: Family) -> None:
    tasks = family.tasks([6, 8, 5, 9])
    unknown = family.prior.hyperparameters(tasks)
    same, x = unknown.build(unknown.start), family.draw_x(2, seed(0))
    torch.testing.assert_close(same.predict(x).mean, family.prior.predict(x).mean)
    torch.testing.assert_close(same.predict(x).variance, family.prior.predict(x).variance)


@pytest.mark.parametrize("family", HIERARCHICAL.values(), ids=HIERARCHICAL.keys())
def test_fit_is_the_mode_of_the_hyperposterior(family: Family) -> None:
    tasks = family.tasks([6, 8, 5, 9])
    unknown = family.prior.hyperparameters(tasks)
    best = most_probable(unknown)
    value = unknown.log_density(best)
    for number in range(8):
        near = best + 0.02 * randn(best.shape, like=F64, generator=seed(number))
        assert unknown.log_density(near) < value
    x = family.draw_x(2, seed(0))
    fitted = family.prior.fit(tasks)
    torch.testing.assert_close(fitted.predict(x).mean, unknown.build(best).predict(x).mean, rtol=1e-4, atol=1e-5)
