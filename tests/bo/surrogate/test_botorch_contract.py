"""What BoTorch asks of any model, asked of surrogates: every family, one task and several, both dtypes, m outputs."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from botorch.acquisition import (
    ExpectedImprovement,
    FixedFeatureAcquisitionFunction,
    LogExpectedImprovement,
    PosteriorMean,
    PosteriorStandardDeviation,
    ProbabilityOfImprovement,
    qExpectedImprovement,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qNoisyExpectedImprovement,
    qProbabilityOfImprovement,
    qSimpleRegret,
    qUpperConfidenceBound,
)
from botorch.acquisition.analytic import (
    LogConstrainedExpectedImprovement,
    LogProbabilityOfFeasibility,
    LogProbabilityOfImprovement,
)
from botorch.acquisition.cost_aware import InverseCostWeightedUtility
from botorch.acquisition.knowledge_gradient import qKnowledgeGradient, qMultiFidelityKnowledgeGradient
from botorch.acquisition.max_value_entropy_search import qMultiFidelityMaxValueEntropy
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import (
    qLogExpectedHypervolumeImprovement,
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.acquisition.multi_objective.parego import qLogNParEGO
from botorch.acquisition.objective import LinearMCObjective, ScalarizedPosteriorTransform
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.acquisition.utils import project_to_target_fidelity, prune_inferior_points
from botorch.generation.sampling import MaxPosteriorSampling
from botorch.models import ModelListGP
from botorch.models.cost import AffineFidelityCostModel
from botorch.models.model import ModelList
from botorch.optim import optimize_acqf
from botorch.optim.utils.acquisition_utils import get_X_baseline
from botorch.sampling import SobolQMCNormalSampler
from botorch.sampling.get_sampler import get_sampler
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.pathwise import draw_matheron_paths
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from torch import Tensor

from bayesmeta import Data
from bayesmeta.random import seeded
from bo import Surrogate
from tests.bo.surrogate.surrogates import PRIORS, points
from tests.families import seed
from tests.seeds import shifted

BEST = 1.0
BOUNDS = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
DTYPES = {"float64": torch.float64, "float32": torch.float32}
BATCHES = {"one task": (), "three tasks": (3,)}
# BoTorch advises against these, which it keeps
ADVICE = "ignore:.* has known numerical issues:botorch.exceptions.warnings.NumericsWarning"

both_dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
one_and_several_tasks = pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
both_lists = pytest.mark.parametrize("kind", [ModelListGP, ModelList])


def sampler(num_draws: int = 4) -> SobolQMCNormalSampler:
    return SobolQMCNormalSampler(torch.Size([num_draws]), seed=shifted(0))


def close(a: Tensor, b: Tensor) -> None:
    tolerance = 1e-8 if a.dtype == torch.float64 else 1e-3
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def some_rows(*batch: int, number: int = 0) -> Data:
    x = points(*batch, 6, number=number, num_inputs=2)
    return Data.of(x, torch.sin(5 * x[..., 0]) + x[..., 1])


def model_of(name: str, *batch: int, dtype: torch.dtype = torch.float64, number: int = 0) -> Surrogate:
    data = some_rows(*batch, number=number).to(dtype)
    return Surrogate(PRIORS[name]().to(dtype).condition(data), data)


@pytest.fixture(params=PRIORS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


# ---- one model


@both_dtypes
@one_and_several_tasks
def test_shapes_and_dtypes(family: str, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    model = model_of(family, *batch, dtype=dtype)
    assert (model.num_outputs, model.batch_shape) == (1, batch)
    for shape in [(1,), (3,), (*batch, 2), (4, *batch, 1), (4, *batch, 2), (4, *[1] * len(batch), 2)]:
        x = points(*shape, num_inputs=2).to(dtype)
        expected = (*torch.broadcast_shapes(shape[:-1], batch), shape[-1], 1)
        plain, noisy = model.posterior(x), model.posterior(x, observation_noise=True)
        own = model.posterior(x, observation_noise=torch.full_like(x[..., :1], 0.3))
        for posterior in (plain, noisy, own):
            assert posterior.mean.shape == posterior.variance.shape == posterior._extended_shape() == expected
            assert posterior.mean.dtype == posterior.variance.dtype == posterior.dtype == dtype
            assert posterior.rsample_from_base_samples(
                torch.Size([2]), torch.zeros(2, *posterior.base_sample_shape, dtype=dtype)
            ).shape == (2, *expected)
        assert (noisy.variance > plain.variance).all()
        close(own.variance, plain.variance + 0.3)
        with seeded(seed(0)):
            draws = get_sampler(plain, torch.Size([5]))(plain)
        assert draws.shape == (5, *expected)
        assert draws.dtype == dtype


@both_dtypes
@one_and_several_tasks
def test_conditioning_and_fantasies(family: str, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    model = model_of(family, *batch, dtype=dtype)
    x, at = (points(*batch, 2, number=number, num_inputs=2).to(dtype) for number in (3, 4))
    after = model.condition_on_observations(x, x[..., :1])
    assert isinstance(after, Surrogate)
    assert after.train_targets.shape == (*batch, 8)
    close(model.get_fantasy_model(x, x[..., 0]).posterior(at).mean, after.posterior(at).mean)
    for num in (0, 2):
        for noise in (None, torch.full_like(x[..., :num, :1], 0.3)):
            fantasies = model.fantasize(x[..., :num, :], sampler(), observation_noise=noise)
            assert fantasies.batch_shape == (4, *batch)
            assert fantasies.train_inputs[0].shape == (4, *batch, 6 + num, 2)
            assert fantasies.posterior(at).mean.shape == (4, *batch, 2, 1)
            assert fantasies.posterior(at).mean.dtype == dtype
    several = model.fantasize(x.expand(5, *x.shape), sampler()).fantasize(at, sampler(2))
    assert several.batch_shape == (2, 4, 5, *batch)


def test_copies(family: str) -> None:
    model, x = model_of(family), points(3, num_inputs=2)
    expected = model.posterior(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.train().eval()):
        close(copied.posterior(x).mean, expected.mean)
        close(copied.posterior(x).variance, expected.variance)
    assert not model.load_state_dict(model.state_dict()).missing_keys


def test_a_model_is_moved_with_all_that_it_holds(family: str) -> None:
    x = points(3, num_inputs=2)
    expected = model_of(family).posterior(x).mean
    for move in (lambda m: m.to(torch.float32), lambda m: m.float(), lambda m: ModelListGP(m).to(x.float()).models[0]):
        moved = move(model_of(family))
        assert moved.train_inputs[0].dtype == moved.likelihood.noise.dtype == torch.float32
        assert moved.posterior(x.float()).mean.dtype == torch.float32
        close(moved.posterior(x.float()).mean, expected.float())
        assert moved.double().posterior(x).mean.dtype == torch.float64


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 2)])
def test_outcomes_and_noise_need_their_axis_of_outputs(shape: tuple[int, ...]) -> None:
    """Three outcomes at three points in each of three batches would be a number for each batch."""
    model, x, wrong = model_of("gaussian_process"), points(3, 3, num_inputs=2), torch.ones(shape).double()
    with pytest.raises(ValueError, match=r"Y must have shape \(\*b, n, 1\), .* got \(3,.*Try Y.unsqueeze"):
        model.condition_on_observations(x, wrong)
    with pytest.raises(ValueError, match=r"observation_noise must have shape"):
        model.posterior(x, observation_noise=wrong)


# ---- acquisitions of one model: those that `test_surrogate_acquisitions` compares are not repeated

ANALYTIC: dict[str, Callable[[Any], Any]] = {
    "EI": lambda model: ExpectedImprovement(model, BEST),
    "LogEI": lambda model: LogExpectedImprovement(model, BEST),
    "PI": lambda model: ProbabilityOfImprovement(model, BEST),
    "LogPI": lambda model: LogProbabilityOfImprovement(model, BEST),
    "mean": PosteriorMean,
    "standard deviation": PosteriorStandardDeviation,
}
MONTE_CARLO: dict[str, Callable[[Any], Any]] = {
    "qEI": lambda model: qExpectedImprovement(model, BEST, sampler=sampler()),
    "qLogEI": lambda model: qLogExpectedImprovement(model, BEST, sampler=sampler()),
    "qPI": lambda model: qProbabilityOfImprovement(model, BEST, sampler=sampler()),
    "qSR": lambda model: qSimpleRegret(model, sampler=sampler()),
    "qUCB": lambda model: qUpperConfidenceBound(model, 2.0, sampler=sampler()),
}
OF_A_BASELINE: dict[str, Callable[[Any], Any]] = {
    "qNEI": lambda model: qNoisyExpectedImprovement(model, model.train_inputs[0], sampler=sampler(), cache_root=False),
    "qLogNEI": lambda model: qLogNoisyExpectedImprovement(model, model.train_inputs[0], sampler=sampler()),
}


@pytest.mark.filterwarnings(ADVICE)
@pytest.mark.parametrize("name", [*ANALYTIC, *MONTE_CARLO, *OF_A_BASELINE])
def test_values_have_slopes(family: str, name: str) -> None:
    """In either dtype, and where there are several tasks a value for each."""
    for dtype in DTYPES.values():
        for batch in [()] if name in OF_A_BASELINE else BATCHES.values():
            x = points(4, *batch, 1 if name in ANALYTIC else 2, num_inputs=2).to(dtype).requires_grad_()
            with seeded(seed(0)):
                acquisition = {**ANALYTIC, **MONTE_CARLO, **OF_A_BASELINE}[name](model_of(family, *batch, dtype=dtype))
                value = acquisition(x)
            assert value.shape == (4, *batch)
            assert value.dtype == dtype
            assert value.isfinite().all()
            assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()


@pytest.mark.filterwarnings(ADVICE)
@pytest.mark.parametrize("name", MONTE_CARLO)
def test_pending_points_are_points_of_every_batch(family: str, name: str) -> None:
    model, x, pending = model_of(family), points(4, 2, num_inputs=2), points(3, number=5, num_inputs=2)
    acquisition = MONTE_CARLO[name](model)
    acquisition.set_X_pending(pending)
    close(acquisition(x), MONTE_CARLO[name](model)(torch.cat([x, pending.expand(4, 3, 2)], -2)))
    acquisition.set_X_pending(None)
    close(acquisition(x[:, :2]), MONTE_CARLO[name](model)(x[:, :2]))


def test_a_baseline_is_pruned_to_what_may_be_best(family: str) -> None:
    model = model_of(family)
    x = model.train_inputs[0]
    with seeded(seed(0)):
        kept = prune_inferior_points(model, x)
    assert all(bool((x == row).all(-1).any()) for row in kept)
    assert bool((kept == x[model.posterior(x).mean.argmax()]).all(-1).any())


def test_a_search_begins_around_the_rows(family: str) -> None:
    with seeded(seed(0)):
        acquisition = FixedFeatureAcquisitionFunction(
            qLogExpectedImprovement(model_of(family), BEST, sampler=sampler()), 2, [1], [0.3]
        )
        assert acquisition(points(4, 2, num_inputs=1)).shape == (4,)
        found, _ = optimize_acqf(
            acquisition.acq_func,
            BOUNDS,
            q=2,
            num_restarts=2,
            raw_samples=8,
            options={"sample_around_best": True, "maxiter": 2},
        )
        chosen = MaxPosteriorSampling(model_of(family), replacement=False)(points(9, num_inputs=2), 3)
    assert found.shape == (2, 2)
    assert len(chosen.unique(dim=0)) == 3


def test_fidelities(family: str) -> None:
    """The second input says how much an evaluation costs."""
    cost = InverseCostWeightedUtility(AffineFidelityCostModel({1: 1.0}, fixed_cost=1.0).double())
    settings: dict[str, Any] = {
        "cost_aware_utility": cost,
        "project": lambda x: project_to_target_fidelity(x, {1: 1.0}, d=2),
    }
    model, current = model_of(family), torch.tensor(0.5).double()
    with seeded(seed(0)):
        gradient = qMultiFidelityKnowledgeGradient(model, 4, current_value=current, **settings)
        entropy = qMultiFidelityMaxValueEntropy(model, points(20, num_inputs=2), **settings)
        assert gradient(points(3, 5, num_inputs=2)).shape == (3,)
        assert entropy(points(3, 1, num_inputs=2)).shape == (3,)


# ---- m outputs


@both_lists
@pytest.mark.parametrize("m", [1, 2, 3])
@one_and_several_tasks
def test_each_output_is_that_of_its_model(family: str, batch: tuple[int, ...], m: int, kind: Any) -> None:
    models = [model_of(family, *batch, number=10 * i) for i in range(m)]
    several, x = kind(*models), points(4, *batch, 2, num_inputs=2)
    noise = 0.1 + points(4, *batch, 2, number=2)[..., :m]
    assert (several.num_outputs, several.batch_shape) == (m, batch)
    plain = several.posterior(x)
    noisy, own = (several.posterior(x, observation_noise=given) for given in (True, noise))
    assert plain.mean.shape == plain.variance.shape == (4, *batch, 2, m)
    for i, model in enumerate(models):
        close(plain.mean[..., i : i + 1], model.posterior(x).mean)
        close(plain.variance[..., i : i + 1], model.posterior(x).variance)
        close(noisy.variance[..., i : i + 1], model.posterior(x, observation_noise=True).variance)
        close(own.variance[..., i : i + 1], model.posterior(x).variance + noise[..., i : i + 1])
        close(several.posterior(x, output_indices=[i]).mean, model.posterior(x).mean)
        close(several.subset_output([i]).posterior(x).mean, model.posterior(x).mean)


@both_lists
@one_and_several_tasks
def test_fantasies_of_several_outputs(family: str, batch: tuple[int, ...], kind: Any) -> None:
    models = [model_of(family, *batch, number=10 * i) for i in range(2)]
    several, x, at = kind(*models), points(*batch, 2, num_inputs=2), points(*batch, 3, number=2, num_inputs=2)
    together = several.fantasize(x, sampler()).posterior(at)
    for i, model in enumerate(models):
        close(together.mean[..., i : i + 1], model.fantasize(x, sampler()).posterior(at).mean)
    some = torch.tensor([[True, False], [True, True]])  # of what is evaluated where
    apart = several.fantasize(x, ListSampler(sampler(), sampler()), evaluation_mask=some)
    assert [model.train_targets.shape[-1] for model in apart.models] == [8, 7]
    assert apart.posterior(at).mean.shape == (4, *batch, 3, 2)


@pytest.mark.parametrize("batch", [(), (4,)])
def test_a_list_is_conditioned_output_by_output(family: str, batch: tuple[int, ...]) -> None:
    models = [model_of(family, number=10 * i) for i in range(2)]
    x, y, at = points(*batch, 2, num_inputs=2), points(*batch, 2)[..., :2], points(3, number=2, num_inputs=2)
    after = ModelListGP(*models).condition_on_observations([x, x], y).posterior(at)
    assert after.mean.shape == (*batch, 3, 2)
    for i, model in enumerate(models):
        alone = model.condition_on_observations(x, y[..., i : i + 1])
        close(after.mean[..., i : i + 1], alone.posterior(at).mean)


# gpytorch warns of the joint normal that ModelListGP makes where it has a lower rank than points, as of linear models
FULL_RANK = ["gaussian_process", "mixture", "transfer_hypotheses"]
WEIGHTS = torch.tensor([1.0, 2.0]).double()


@pytest.mark.parametrize("name", FULL_RANK)
def test_a_weighted_sum_of_outputs(name: str) -> None:
    models = [model_of(name, number=10 * i) for i in range(2)]
    x, transform = points(4, 2, num_inputs=2), ScalarizedPosteriorTransform(WEIGHTS, offset=1.0)
    each = [model.posterior(x) for model in models]
    summed = ModelListGP(*models).posterior(x, posterior_transform=transform)
    close(summed.mean, 1.0 + each[0].mean + 2.0 * each[1].mean)
    close(summed.variance, each[0].variance + 4.0 * each[1].variance)
    single = ModelList(*models).posterior(x[:, :1], posterior_transform=transform)  # BoTorch sums these at one point
    close(single.mean, summed.mean[:, :1])


def test_a_plain_list_keeps_mixtures() -> None:
    """`ModelListGP` draws from the normal that has the mean and covariance of the mixture."""
    model, x = model_of("mixture"), points(1, num_inputs=2)
    with seeded(seed(0)):
        draws = ModelList(model, model).posterior(x).rsample(torch.Size([5000]))[:, 0]
    exact = model.task_posterior.marginal(x)
    for output in draws.unbind(-1):
        assert scipy.stats.kstest(output.numpy(), lambda y: exact.cdf(torch.as_tensor(y)).numpy()).pvalue > 1e-6


SUM = LinearMCObjective(WEIGHTS)
REFERENCE = torch.zeros(2).double()
SEVERAL: dict[str, Callable[[Any, Tensor], Any]] = {
    "qLogEI": lambda model, x: qLogExpectedImprovement(model, BEST, objective=SUM),
    "qLogNEI": lambda model, x: qLogNoisyExpectedImprovement(model, x, objective=SUM),
    "qLogEHVI": lambda model, x: qLogExpectedHypervolumeImprovement(
        model, REFERENCE, FastNondominatedPartitioning(REFERENCE, model.posterior(x[:2]).mean)
    ),
    "qLogNEHVI": lambda model, x: qLogNoisyExpectedHypervolumeImprovement(model, REFERENCE, x, cache_root=False),
    "ParEGO": qLogNParEGO,
}
FOR_LISTS_OF_GPS: dict[str, Callable[[Any, Tensor], Any]] = {
    "Thompson": lambda model, x: PathwiseThompsonSampling(model, objective=SUM),
    "KG": lambda model, x: qKnowledgeGradient(model, 1, objective=SUM),
}


@pytest.fixture
def _nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """BoTorch compiles a faster kernel in a folder of all processes, and waits for whoever was killed doing so."""
    monkeypatch.setattr(logei, "_load_attempted", True)


@pytest.mark.usefixtures("_nothing_is_compiled")
@pytest.mark.parametrize("family", FULL_RANK)
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((n, k) for n in SEVERAL for k in (ModelListGP, ModelList)), *((n, ModelListGP) for n in FOR_LISTS_OF_GPS)],
)
def test_values_of_several_outputs_have_slopes(family: str, name: str, kind: Any) -> None:
    several = kind(*(model_of(family, number=10 * i) for i in range(2)))
    x = points(3, 2, number=3, num_inputs=2).requires_grad_()
    with seeded(seed(0)):
        value = {**SEVERAL, **FOR_LISTS_OF_GPS}[name](several, several.models[0].train_inputs[0])(x)
    assert value.shape == (3,)
    assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()


@both_lists
def test_an_output_that_is_not_to_exceed_a_limit(family: str, kind: Any) -> None:
    two, x = kind(model_of(family), model_of(family, number=10)), points(4, 1, num_inputs=2)
    promising, feasible = [
        (
            LogConstrainedExpectedImprovement(two, BEST, 0, {1: (None, limit)})(x),
            LogProbabilityOfFeasibility(two, {1: (None, limit)})(x),
        )
        for limit in (0.0, 10.0)
    ]
    for limited, free in zip(promising, feasible, strict=True):
        assert (limited <= free).all()  # as much, where the limit is met without a doubt
        assert (limited < free).any()


def test_paths_and_rows_of_several_outputs(family: str) -> None:
    two, x = ModelListGP(model_of(family), model_of(family, number=10)), points(5, num_inputs=2)
    with seeded(seed(0)):
        each = draw_matheron_paths(two, torch.Size([3]))(x)
    assert [path.shape for path in each] == [(3, 5), (3, 5)]
    assert torch.equal(get_X_baseline(qSimpleRegret(two, objective=SUM)), rows_of(two, 0))
    assert not torch.equal(rows_of(two, 0), rows_of(two, 1))


def rows_of(models: ModelListGP, output: int) -> Tensor:
    return models.models[output].train_inputs[0]
