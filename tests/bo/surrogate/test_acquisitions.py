"""BoTorch's acquisitions and optimisers on posteriors of ours: its own values where it has the model, else loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from botorch.acquisition import (
    LogExpectedImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qUpperConfidenceBound,
)
from botorch.acquisition.active_learning import qNegIntegratedPosteriorVariance
from botorch.acquisition.joint_entropy_search import qJointEntropySearch
from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy, qMaxValueEntropy
from botorch.acquisition.multi_step_lookahead import qMultiStepLookahead
from botorch.acquisition.objective import GenericMCObjective, LinearMCObjective
from botorch.acquisition.predictive_entropy_search import qPredictiveEntropySearch
from botorch.acquisition.proximal import ProximalAcquisitionFunction
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.models import ModelListGP
from botorch.models.model import ModelList
from botorch.optim import (
    optimize_acqf,
    optimize_acqf_discrete,
    optimize_acqf_discrete_local_search,
    optimize_acqf_mixed,
)
from botorch.optim.utils.acquisition_utils import get_X_baseline
from botorch.sampling import SobolQMCNormalSampler
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.random import rand, seeded
from bo import MixtureLogExpectedImprovement, Surrogate, expected_improvement
from tests.bo.surrogate.surrogates import (
    LINEAR,
    PRIORS,
    PROCESS,
    botorchs_own,
    linear_kernel,
    matern_kernel,
    points,
    rows,
    some_hypotheses,
)
from tests.families import F64, seed
from tests.seeds import shifted

BOUNDS = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
BEST = 1.0
NUM_RANDOM = 2000


def close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def sampler(num_draws: int = 64) -> SobolQMCNormalSampler:
    return SobolQMCNormalSampler(torch.Size([num_draws]), seed=shifted(0))


# of any model of the inputs that it is shown, with what it needs to be the same twice: (model, rows, candidates)
SINGLE: dict[str, Callable[[Any, Data, Tensor], Any]] = {
    "LogEI": lambda model, data, at: LogExpectedImprovement(model, BEST),
    "UCB": lambda model, data, at: UpperConfidenceBound(model, 2.0),
    "posterior mean": lambda model, data, at: PosteriorMean(model),
    "max-value entropy": lambda model, data, at: qMaxValueEntropy(model, at, train_inputs=data.x),
    "GIBBON": lambda model, data, at: qLowerBoundMaxValueEntropy(model, at, train_inputs=data.x),
    "GIBBON, pending": lambda model, data, at: qLowerBoundMaxValueEntropy(
        model, at, train_inputs=data.x, X_pending=at[:2]
    ),
}
BATCH: dict[str, Callable[[Any, Data, Tensor], Any]] = {
    "qLogEI": lambda model, data, at: qLogExpectedImprovement(model, BEST, sampler=sampler()),
    "qLogEI, pending": lambda model, data, at: qLogExpectedImprovement(
        model, BEST, sampler=sampler(), X_pending=at[:2]
    ),
    "qLogNEI": lambda model, data, at: qLogNoisyExpectedImprovement(
        model, data.x, sampler=sampler(), prune_baseline=False, cache_root=False
    ),
    "qLogNEI, pending": lambda model, data, at: qLogNoisyExpectedImprovement(
        model, data.x, sampler=sampler(), prune_baseline=False, cache_root=False, X_pending=at[:2]
    ),
    "qUCB": lambda model, data, at: qUpperConfidenceBound(model, 2.0, sampler=sampler()),
}
# those that ask a model for the rows that it was conditioned on, and for its noise
OF_ROWS: dict[str, Callable[[Any, Data, Tensor], Any]] = {
    "predictive entropy": lambda model, data, at: qPredictiveEntropySearch(model, at[:4], maximize=True),
    "proximal": lambda model, data, at: ProximalAcquisitionFunction(
        LogExpectedImprovement(model, BEST), torch.ones_like(at[0]), beta=1.0
    ),
    "proximal of a list": lambda model, data, at: ProximalAcquisitionFunction(
        qUpperConfidenceBound(
            ModelListGP(model, model),
            2.0,
            sampler=sampler(),
            objective=LinearMCObjective(torch.tensor([1.0, 2.0]).double()),
        ),
        torch.ones_like(at[0]),
        beta=1.0,
    ),
}
# those whose last points are of fantasies
ONE_SHOT: dict[str, Callable[[Any, Data, Tensor], Any]] = {
    "knowledge gradient": lambda model, data, at: qKnowledgeGradient(model, num_fantasies=4, sampler=sampler(4)),
}
# for which BoTorch's own model has to be told the noise once more
OURS_ALONE: dict[str, Callable[[Any, Data, Tensor], Any]] = {
    "joint entropy": lambda model, data, at: qJointEntropySearch(
        model, at[:4], model.posterior(at[:4]).mean.detach(), condition_noiseless=False
    ),
    "integrated variance": lambda model, data, at: qNegIntegratedPosteriorVariance(model, at, sampler=sampler(1)),
}
NUM_POINTS = {**dict.fromkeys({**SINGLE, **OF_ROWS}, 1), **dict.fromkeys(BATCH, 2), **dict.fromkeys(ONE_SHOT, 6)}
OF_BOTORCH = {**SINGLE, **OF_ROWS, **BATCH, **ONE_SHOT}
ALL = {**OF_BOTORCH, **OURS_ALONE}


def value_and_slope(name: str, model: Any, data: Data, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with seeded(seed(0)):
        value = ALL[name](model, data, at)(x)
    assert value.shape == x.shape[:-2]
    if "Log" in name:  # compared is what the logarithm is of: where that is tiny, its logarithm magnifies rounding
        value = value.exp()
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.parametrize("name", OF_BOTORCH)
def test_values_and_slopes_are_those_of_botorchs_own_process(name: str) -> None:
    data, x, at = rows(8), points(5, NUM_POINTS[name]), points(20, number=2)
    ours = value_and_slope(name, Surrogate(PROCESS.condition(data)), data, x, at)
    theirs = value_and_slope(name, botorchs_own(matern_kernel(), data), data, x, at)
    for left, right in zip(ours, theirs, strict=True):
        close(left, right)


@pytest.mark.parametrize("name", SINGLE)
def test_values_and_slopes_are_those_of_botorchs_own_linear_model(name: str) -> None:
    """Of single points: for several ours has roots of another rank, whose base samples mean something else."""
    data, x, at = rows(8), points(5, 1), points(20, number=2)
    ours = value_and_slope(name, Surrogate(LINEAR.condition(data)), data, x, at)
    theirs = value_and_slope(name, botorchs_own(linear_kernel(), data), data, x, at)
    for left, right in zip(ours, theirs, strict=True):
        close(left, right)


def test_batch_acquisitions_of_linear_models_estimate_the_same() -> None:
    data, x, num_draws = rows(8), points(5, 2), 2**13
    values = []
    for model in (Surrogate(LINEAR.condition(data)), botorchs_own(linear_kernel(), data)):
        acquisition = qLogNoisyExpectedImprovement(
            model, data.x, sampler=sampler(num_draws), prune_baseline=False, cache_root=False
        )
        values.append(acquisition(x).exp())
    close(*values, tolerance=0.02)


@pytest.fixture(params=PRIORS)
def posterior(request: pytest.FixtureRequest) -> Any:
    return PRIORS[request.param]().condition(rows(6, num_inputs=2))


# BoTorch's predictive entropy has slopes that are not numbers at some points of some posteriors
@pytest.mark.parametrize("name", [name for name in ALL if name != "predictive entropy"])
def test_batches_equal_a_loop(name: str, posterior: Any) -> None:
    data, q = rows(6, num_inputs=2), NUM_POINTS.get(name, 2)
    x, at, model = points(4, q, num_inputs=2), points(12, number=2, num_inputs=2), Surrogate(posterior, data)
    together, slope = value_and_slope(name, model, data, x, at)
    assert slope.isfinite().all()
    for i in range(4):
        close(together[i : i + 1], value_and_slope(name, model, data, x[i : i + 1], at)[0], 1e-8)


def test_looking_several_steps_ahead(posterior: Any) -> None:
    with seeded(seed(0)):
        acquisition = qMultiStepLookahead(Surrogate(posterior), batch_sizes=[1, 1], num_fantasies=[2, 2])
        x = points(3, acquisition.get_augmented_q_batch_size(1), num_inputs=2).requires_grad_()
        value = acquisition(x)
    assert value.shape == (3,)
    assert torch.autograd.grad(value.sum(), x)[0].abs().amax((1, 2)).min() > 0


def test_other_outputs_constrain(posterior: Any) -> None:
    """Two surrogates side by side, the second of which must stay below a limit."""
    two = ModelList(Surrogate(posterior), Surrogate(posterior))
    objective = GenericMCObjective(lambda samples, X=None: samples[..., 0])
    values = []
    for limit in (10.0, -10.0):
        constraints = [lambda samples, limit=limit: samples[..., 1] - limit]
        with seeded(seed(0)):
            acquisition = qLogExpectedImprovement(two, BEST, objective=objective, constraints=constraints)
            values.append(acquisition(points(4, 2, num_inputs=2)))
    assert (values[0] > values[1] + 10.0).all()


@pytest.fixture(params=["gaussian_process", "learned_features", "transfer_hypotheses"])
def searched(request: pytest.FixtureRequest) -> Any:
    return PRIORS[request.param]().condition(rows(6, num_inputs=2))


def at_random(acquisition: Any, q: int = 1, num: int = NUM_RANDOM) -> tuple[Tensor, Tensor]:
    """Random points `(num, q, 2)` and what they are worth, the best first.

    A search from the best of them finds no less, whatever was drawn. One from few points of its own may.
    """
    x = rand((num, q, 2), like=F64, generator=seed(5))
    with torch.no_grad():
        value = torch.cat([acquisition(part) for part in x.split(500)])
    order = value.argsort(descending=True)
    return x[order], value[order]


def noisy_improvement(posterior: Any) -> Any:
    """Without pruning, which is random: two of one posterior are the same."""
    data = rows(6, num_inputs=2)
    return qLogNoisyExpectedImprovement(Surrogate(posterior), data.x, sampler=sampler(), prune_baseline=False)


@pytest.mark.parametrize("improvement", [LogExpectedImprovement, MixtureLogExpectedImprovement])
def test_optimize_acqf(searched: Any, improvement: Any) -> None:
    with seeded(seed(0)):
        acquisition = improvement(Surrogate(searched), BEST)
        x, values = at_random(acquisition)
        found, value = optimize_acqf(acquisition, BOUNDS, q=1, num_restarts=4, batch_initial_conditions=x[:4])
    assert ((found >= 0) & (found <= 1)).all()
    close(acquisition(found[None])[0], value)
    assert value >= values[0] - 1e-6


@pytest.mark.parametrize("sequential", [False, True])
def test_optimize_acqf_for_four_points(searched: Any, sequential: bool) -> None:
    """All at once from the best of random ones; or one after the other, which is better than all but a few are."""
    with seeded(seed(0)):
        acquisition = noisy_improvement(searched)
        x, values = at_random(acquisition, q=4)
        start: dict[str, Any] = {"raw_samples": 128} if sequential else {"batch_initial_conditions": x[:2]}
        found, _ = optimize_acqf(
            acquisition, BOUNDS, q=4, num_restarts=2, sequential=sequential, options={"maxiter": 50}, **start
        )
        value = noisy_improvement(searched)(found)
    assert found.shape == (4, 2)
    assert ((found >= 0) & (found <= 1)).all()
    assert value >= (values[NUM_RANDOM // 10] if sequential else values[0]) - 1e-6


def test_optimize_acqf_with_one_shot_knowledge_gradient(searched: Any) -> None:
    with seeded(seed(0)):
        acquisition = qKnowledgeGradient(Surrogate(searched), num_fantasies=4, sampler=sampler(4))
        x, values = at_random(acquisition, q=5, num=400)
        found, value = optimize_acqf(
            acquisition, BOUNDS, q=1, num_restarts=2, batch_initial_conditions=x[:2], options={"maxiter": 20}
        )
    assert found.shape == (1, 2)
    assert value >= values[0] - 1e-6


def test_optimize_acqf_mixed(searched: Any) -> None:
    """The second input is one of three values."""
    levels = torch.tensor([0.0, 0.4, 1.0]).double()
    x = rand((NUM_RANDOM, 1, 2), like=F64, generator=seed(5))
    x[..., 1] = levels[(3 * x[..., 1]).long()]
    with seeded(seed(0)):
        acquisition = LogExpectedImprovement(Surrogate(searched), BEST)
        values = acquisition(x).detach()
        found, value = optimize_acqf_mixed(
            acquisition,
            BOUNDS,
            q=1,
            num_restarts=3,
            batch_initial_conditions=x[values.argsort(descending=True)[:3]],
            fixed_features_list=[{1: level} for level in levels.tolist()],
        )
    assert float(found[0, 1]) in levels.tolist()
    assert value >= values.max() - 1e-6


def test_optimize_acqf_discrete(searched: Any) -> None:
    choices = points(60, num_inputs=2)
    with seeded(seed(0)):
        acquisition = noisy_improvement(searched)
        found, values = optimize_acqf_discrete(acquisition, q=3, choices=choices)
        of_choices = noisy_improvement(searched)(choices[:, None]).detach()
    assert len(found.unique(dim=0)) == 3
    close(of_choices[(choices == found[0]).all(-1)].max(), of_choices.max())
    close(values[0], of_choices.max())
    assert all(bool((choices == x).all(-1).any()) for x in found)


def test_optimize_acqf_discrete_local_search(searched: Any) -> None:
    axis = torch.linspace(0.0, 1.0, 9).double()
    grid = torch.cartesian_prod(axis, axis)
    with seeded(seed(0)):
        acquisition = LogExpectedImprovement(Surrogate(searched), BEST)
        found, value = optimize_acqf_discrete_local_search(
            acquisition, [axis, axis], q=1, num_restarts=5, batch_initial_conditions=grid[::4, None]
        )
        values = acquisition(grid[:, None]).detach()
    assert bool(torch.isin(found, axis).all())
    assert value >= values[::4].max() - 1e-9
    beside = ((grid - found).abs() > 0).sum(-1) == 1
    assert value >= values[beside].max() - 1e-9


def test_the_known_maximiser() -> None:
    """On a line: BoTorch's optimiser ends where a fine grid of our own expected improvement is greatest."""
    x = torch.tensor([[0.1], [0.35], [0.8], [0.95]]).double()
    data = Data.of(x, torch.sin(7.0 * x[:, 0]))
    process = bm.GaussianProcess(torch.tensor([0.2]).double(), F64 + 1.0, F64 + 1e-4).condition(data)
    grid = torch.linspace(0.0, 1.0, 20_001).double()[:, None]
    worth = expected_improvement(process.marginal(grid), data.y.max())
    with seeded(seed(0)):
        acquisition = LogExpectedImprovement(Surrogate(process), data.y.max())
        starts = grid[::1000, None]
        found, value = optimize_acqf(acquisition, BOUNDS[:, :1], q=1, num_restarts=21, batch_initial_conditions=starts)
    assert (found[0, 0] - grid[worth.argmax(), 0]).abs() < 1e-4
    close(value, worth.max().log(), 1e-6)


def test_rows_are_those_that_botorchs_own_model_has() -> None:
    data = rows(8)
    for model in (
        Surrogate(PROCESS.condition(data)),
        Surrogate(some_hypotheses().condition(rows(8, num_inputs=2))),
        Surrogate(LINEAR.condition(data), data),
    ):
        given = rows(8, num_inputs=2) if len(model.train_inputs[0][0]) == 2 else data
        assert torch.equal(model.train_inputs[0], given.x)
        assert torch.equal(model.train_targets, given.y)
        more = model.condition_on_observations(given.x[:2] + 0.01, given.y[:2, None])
        assert torch.equal(more.train_targets, torch.cat([given.y, given.y[:2]]))
    own = botorchs_own(matern_kernel(), data)
    ours = Surrogate(PROCESS.condition(data))
    torch.testing.assert_close(ours.likelihood.noise, own.likelihood.noise[:1], rtol=1e-6, atol=0)
    best = [get_X_baseline(qLogExpectedImprovement(model, BEST)) for model in (ours, own)]
    torch.testing.assert_close(*best)
    with seeded(seed(0)):
        paths = PathwiseThompsonSampling(
            ModelListGP(ours, ours), objective=LinearMCObjective(torch.tensor([1.0, 1.0]).double())
        )
        assert paths(points(5, 1)).isfinite().all()


def test_a_posterior_that_keeps_no_rows_says_how_to_give_them() -> None:
    with pytest.raises(AttributeError, match=r"give them, Surrogate\(posterior, rows\)"):
        _ = Surrogate(LINEAR.condition(rows(8))).train_inputs
