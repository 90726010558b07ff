"""Log expected improvement of mixtures, held to expected improvement hypothesis by hypothesis."""

from typing import Any

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.acquisition.objective import PosteriorTransform, ScalarizedPosteriorTransform
from botorch.optim import optimize_acqf
from botorch.posteriors.posterior import Posterior
from botorch.posteriors.transformed import TransformedPosterior
from torch import Tensor

from bayesmeta import Data
from bayesmeta.random import seeded
from bo import MixtureLogExpectedImprovement, Surrogate, expected_improvement
from tests.bo.surrogate.surrogates import PRIORS, points, rows, some_hypotheses
from tests.families import seed

BEST = 1.3
X = points(30, 1, num_inputs=2)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=PRIORS)
def posterior(request: pytest.FixtureRequest) -> Any:
    return PRIORS[request.param]().condition(rows(6, num_inputs=2))


@pytest.mark.parametrize("maximize", [True, False])
def test_it_is_the_log_of_expected_improvement(posterior: Any, maximize: bool) -> None:
    value = MixtureLogExpectedImprovement(Surrogate(posterior), BEST, maximize=maximize)(X)
    expected = expected_improvement(posterior.marginal(X[:, 0]), BEST, maximize=maximize)
    assert value.shape == (30,)
    some = expected > 1e-10  # below that the formula without logarithms has lost its digits
    assert some.any()
    close(value[some], expected[some].log(), 1e-5)


def test_of_one_hypothesis_it_is_botorchs() -> None:
    model = Surrogate(PRIORS["learned"]().condition(rows(6, num_inputs=2)))
    close(MixtureLogExpectedImprovement(model, BEST)(X), LogExpectedImprovement(model, BEST)(X))


def test_far_below_the_best_it_still_has_a_slope() -> None:
    x = X.clone().requires_grad_()
    model = Surrogate(some_hypotheses().condition(rows(6, num_inputs=2)))
    value = MixtureLogExpectedImprovement(model, 100.0)(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.isfinite().all()
    assert (value < -700.0).any()  # where expected improvement itself is zero
    assert (gradient.abs().amax(-1) > 0).all()
    assert torch.autograd.gradcheck(MixtureLogExpectedImprovement(model, BEST), (x[:3],), atol=1e-5)


def test_negated_outputs_are_minimised() -> None:
    model = Surrogate(some_hypotheses().condition(rows(6, num_inputs=2)))
    negated = ScalarizedPosteriorTransform(torch.tensor([-1.0]).double())
    value = MixtureLogExpectedImprovement(model, -BEST, posterior_transform=negated)(X)
    close(value, MixtureLogExpectedImprovement(model, BEST, maximize=False)(X))


def test_a_batch_of_tasks_has_bests_of_its_own() -> None:
    prior = some_hypotheses()
    tasks = Data.pad([(rows(n, n, 2).x, rows(n, n, 2).y) for n in (4, 5)])
    best = torch.tensor([1.0, 2.0]).double()
    value = MixtureLogExpectedImprovement(Surrogate(prior.condition(tasks)), best[:, None])(X[:, None])
    assert value.shape == (30, 2)
    for task in range(2):
        alone = Surrogate(prior.condition(tasks[task]))
        close(value[:, task], MixtureLogExpectedImprovement(alone, best[task])(X))


def test_botorchs_optimiser_finds_the_best_of_a_grid() -> None:
    posterior = some_hypotheses().condition(rows(8, num_inputs=2))
    axis = torch.linspace(0.0, 1.0, 101).double()
    grid = torch.cartesian_prod(axis, axis)
    worth = expected_improvement(posterior.marginal(grid), BEST)
    bounds = torch.tensor([[0.0] * 2, [1.0] * 2]).double()
    with seeded(seed(0)):
        acquisition = MixtureLogExpectedImprovement(Surrogate(posterior), BEST)
        found, value = optimize_acqf(acquisition, bounds, q=1, num_restarts=8, raw_samples=1024)
    assert value >= worth.max().log() - 1e-9
    close(value, expected_improvement(posterior.marginal(found), BEST)[0].log(), 1e-6)  # where it lies, two may tie


class _Exponential(PosteriorTransform):
    def evaluate(self, Y: Tensor, X: Tensor | None = None) -> Tensor:
        return Y.exp()

    def forward(self, posterior: Posterior, X: Tensor | None = None) -> Posterior:
        return TransformedPosterior(posterior, sample_transform=torch.exp)


def test_what_is_not_normal_is_refused() -> None:
    model = Surrogate(some_hypotheses())
    with pytest.raises(TypeError, match="turns normals into normals; got a TransformedPosterior"):
        MixtureLogExpectedImprovement(model, BEST, posterior_transform=_Exponential())(X)
