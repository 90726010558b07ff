"""Posteriors against closed forms, and what a family of priors promises."""

import math

import pytest
import torch

from bayesmeta import Data, LinearGaussian, from_pyro
from bayesmeta.pyro_models.prior import PyroPrior
from tests.bayesmeta.pyro_models.models import MODELS, eight_schools, logistic, noise, normal
from tests.seeds import seed

N, D, TASKS = 5, 2, 3
LIKE = torch.zeros((), dtype=torch.float64)


def line(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
    import pyro
    import pyro.distributions as dist

    w = pyro.sample("w", dist.Normal(0.5, 2.0).expand([D]).to_event(1))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


DATA = Data.of(noise(TASKS, N, D), noise(TASKS, N, number=1))
EXACT = LinearGaussian(torch.full((D,), 0.5).double(), torch.eye(D).double() / 4.0, torch.tensor(0.49).double())
PRIOR = from_pyro(line).initial(DATA)
NEW = noise(TASKS, 4, D, number=2)


@pytest.fixture(scope="module")
def posterior() -> PyroPrior:
    return PRIOR.condition(DATA)


def test_posterior_is_the_closed_form(posterior: PyroPrior) -> None:
    exact = EXACT.condition(DATA)
    draws = posterior.params["w"]
    sd = torch.linalg.inv(exact.precision).diagonal(dim1=-2, dim2=-1).sqrt()
    error = sd / posterior.draws.ess_bulk.sqrt()
    assert bool(((draws.mean((0, 1)) - exact.loc).abs() < 5.0 * error).all())
    assert bool(((draws.flatten(0, 1).std(0) / sd - 1.0).abs() < 5.0 * error / sd).all())


def test_evidence_is_the_closed_form(posterior: PyroPrior) -> None:
    error = PRIOR.log_evidence_error(DATA)
    assert bool(((PRIOR.log_evidence(DATA) - EXACT.log_evidence(DATA)).abs() < 5.0 * error).all())
    more = Data.of(NEW, noise(TASKS, 4, number=3))
    exact = EXACT.condition(DATA).log_evidence(more)
    error = posterior.log_evidence_error(more)
    assert bool(((posterior.log_evidence(more) - exact).abs() < 5.0 * error).all())


def test_predictions_are_the_closed_form(posterior: PyroPrior) -> None:
    found, exact = posterior.predict(NEW), EXACT.condition(DATA).predict(NEW)
    assert found.batch_shape == (TASKS, 4)
    error = (exact.variance - 0.49).sqrt() / 400**0.5
    assert bool(((found.mean - exact.mean).abs() < 6.0 * error).all())
    torch.testing.assert_close(found.variance, exact.variance, rtol=0.4, atol=0.0)
    assert bool((found.log_prob(exact.mean) - exact.log_prob(exact.mean)).abs().max() < 0.3)


def test_draws_are_functions(posterior: PyroPrior) -> None:
    functions = posterior.sample(50, generator=seed(3))
    values = functions(NEW)
    assert values.shape == (50, TASKS, 4)
    torch.testing.assert_close(functions(NEW[:, :2]), values[:, :, :2])
    shared = functions(NEW[0])
    assert shared.shape == (50, TASKS, 4)
    torch.testing.assert_close(functions.predict(NEW).stddev, torch.full_like(values, 0.7))


def test_twice_is_once() -> None:
    twice = PRIOR.condition(DATA.rows(slice(2))).condition(DATA.rows(slice(2, None)))
    assert twice.equals(PRIOR.condition(DATA))


def test_one_data_set_has_no_axis_of_tasks(posterior: PyroPrior) -> None:
    alone = PRIOR.condition(DATA[1])
    assert alone.batch_shape == ()
    assert alone.predict(NEW[1]).mean.shape == (4,)
    assert alone.sample_params(7, generator=seed(0)).shape == (7, D)
    assert alone.log_evidence(DATA[1]).shape == ()
    params = noise(6, D)
    exact = EXACT.condition(DATA[1]).log_prob(params)
    torch.testing.assert_close(alone.log_prob(params), exact, rtol=0.0, atol=5.0 * float(alone._evidence[1]))
    assert alone.constrain(params)["w"].shape == (6, D)
    some = posterior[1:]
    assert some.batch_shape == (2,)
    torch.testing.assert_close(some.params["w"], posterior.params["w"][:, :, 1:])
    assert posterior[1].batch_shape == ()


def test_prior_predictions() -> None:
    found, exact = PRIOR.predict(NEW[0]), EXACT.predict(NEW[0])
    assert bool(((found.mean - exact.mean).abs() < 6.0 * exact.stddev / 20.0).all())
    assert PRIOR.log_prob(noise(3, D)).shape == (3,)
    torch.testing.assert_close(PRIOR.log_prob(noise(3, D)), EXACT.log_prob(noise(3, D)), rtol=1e-10, atol=1e-10)


def test_ragged_tasks_are_each_alone() -> None:
    x, y = noise(2, 5, 1), (noise(2, 5, number=1) > 0).double()
    ragged = Data.pad([(x[0], y[0]), (x[1, :2], y[1, :2])])
    both = from_pyro(logistic).initial(ragged).condition(ragged)
    short = from_pyro(logistic).initial(ragged).condition(Data.of(x[1, :2], y[1, :2]))
    difference = both.params["w"][:, :, 1].mean() - short.params["w"].mean()
    variance = both.params["w"][:, :, 1].var()
    sizes = 1.0 / both.draws.ess_bulk[1, 0] + 1.0 / short.draws.ess_bulk[0, 0]
    assert abs(float(difference)) < 5.0 * math.sqrt(float(variance * sizes))


def test_sites_have_names_and_shapes_in_arviz() -> None:
    model, data = MODELS["regression"]
    posterior = from_pyro(model, num_draws=400).initial(data).condition(data)
    found = posterior.to_arviz(task_names=["a", "b", "c", "d"], log_likelihood=True)
    assert found.posterior["w"].shape == (4, 400, 4, 3)
    assert found.posterior["scale"].dims == ("chain", "draw", "task")
    assert list(found.posterior["task"].values) == ["a", "b", "c", "d"]
    assert found.observed_data["y"].shape == (4, 6)
    assert found.log_likelihood["y"].shape == (4, 400, 4, 6)
    assert not hasattr(posterior.to_arviz(), "log_likelihood")
    expected = from_pyro(model).targets(data).log_likelihood(posterior.draws.position)
    torch.testing.assert_close(torch.as_tensor(found.log_likelihood["y"].values).sum(-1), expected)


def test_ranks_of_the_truth_are_uniform() -> None:
    """Simulation-based calibration: parameters drawn of the prior, data of them, and where they rank in posteriors."""
    tasks = 300
    m = 3.0 * noise(tasks, 1, number=4)
    data = Data.of(None, m + noise(tasks, 3, number=5))
    posterior = from_pyro(normal, num_draws=100).initial(data).condition(data)
    draws = posterior.draws.position[:, 4::5].flatten(0, 1)[..., 0]
    rank = (draws < m[:, 0]).double().mean(0)
    assert abs(float(rank.mean()) - 0.5) < 5.0 * math.sqrt(1.0 / 12.0 / tasks)
    assert abs(float(rank.var()) - 1.0 / 12.0) < 5.0 * math.sqrt(1.0 / 180.0 / tasks) + 0.005


def test_a_site_of_each_row_is_drawn_at_new_rows() -> None:
    data = {"sigma": noise(2, 4).abs() + 1.0, "y": noise(2, 4, number=1)}
    prior = from_pyro(eight_schools).initial(data)
    values = prior.sample(2000, generator=seed(1))({"sigma": torch.ones(1, 6).double()})
    assert values.shape == (2000, 1, 6)
    assert float(values.var(-1).mean()) > 1.0  # schools differ


def test_what_it_says_of_itself(posterior: PyroPrior) -> None:
    assert repr(posterior).splitlines()[0] == "PyroPrior of line with w; given 15 rows of 3 tasks"
