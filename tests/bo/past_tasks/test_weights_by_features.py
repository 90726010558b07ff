"""Features of tasks: which past tasks count for a new one, and a sampler that reads them from its study."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import optuna
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, GaussianProcess
from bayesmeta.gp.transfer import transfer_hypotheses
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.past_tasks.weights_by_features import EQUAL, TaskFeatures
from tests.bo import past
from tests.families import seed
from tests.seeds import shifted

F64 = torch.zeros((), dtype=torch.float64)
NUM_TASKS = 24
SPACE = SearchSpace({"rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)})
SIZES = torch.logspace(1, 5, NUM_TASKS, dtype=torch.float64)  # rows of the data of each task


def best_rate(size: float) -> float:
    """Large data want small rates: the optimum in the unit interval."""
    return 1.0 - (math.log10(size) - 1) / 4


def values(x: Tensor, size: float) -> Tensor:
    return -(x[..., 0] - best_rate(size)).square()


@cache
def tasks(tell: bool = True) -> Data:
    x = torch.rand(NUM_TASKS, 20, 1, generator=seed(0), dtype=torch.float64)
    y = torch.stack([values(x[i], float(size)) for i, size in enumerate(SIZES)])
    noise = torch.randn(NUM_TASKS, generator=seed(1), dtype=torch.float64)
    told = SIZES if tell else SIZES[torch.randperm(NUM_TASKS, generator=seed(2))]
    return Data(x, y, torch.ones_like(y, dtype=torch.bool), torch.stack([told, noise], -1))


@cache
def prior(tell: bool = True) -> TuningPrior:
    return TuningPrior.fit(SPACE, tasks(tell), "maximize", feature_names=("size", "moon"))


def expected_best(known: TuningPrior) -> float:
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    return float(grid[known.functions.marginal(grid).mean.argmax(), 0])


def scores_of(features: Tensor) -> Tensor:
    """Normal scores of columns without ties."""
    return torch.special.ndtri((features.argsort(0).argsort(0).double() + 0.5) / NUM_TASKS)


@pytest.mark.parametrize("size", [20.0, 1e3, 5e4])
def test_the_past_tasks_that_are_like_it_say_where_to_begin(size: float) -> None:
    given = prior().given({"size": size, "moon": 0.0})
    assert abs(expected_best(given) - best_rate(size)) < 0.2  # about .02 +- .02
    assert abs(expected_best(prior()) - 0.5) < 0.2


def test_what_says_nothing_counts_for_nothing() -> None:
    features = prior().suggester.features
    assert features is not None
    informative, silent = features.precision.tolist()
    assert informative > 10 * silent
    shuffled = prior(tell=False).suggester.features
    assert shuffled is not None
    assert float(shuffled.precision.max()) < 0.4  # about .1 +- .03; what tells something has twenty
    weights = shuffled.weights({"size": 1e3, "moon": 0.0})
    assert float(weights.max()) < 2 / NUM_TASKS


def test_weights_are_those_of_the_formula() -> None:
    features = prior().suggester.features
    assert features is not None
    weights = features.weights({"size": float(SIZES[5]), "moon": float(tasks().task_x[5, 1])})
    u = scores_of(features.values)
    likeness = (-0.5 * (u - u[5]).square() @ features.precision).exp()
    expected = (1 - EQUAL) * likeness / likeness.sum() + EQUAL / NUM_TASKS
    torch.testing.assert_close(weights, expected)
    assert float(weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("change", [lambda v: 1e6 * v, lambda v: v.exp(), lambda v: v - 1e9])
def test_units_of_features_do_not_matter(change: Callable[[Tensor], Tensor]) -> None:
    features = prior().suggester.features
    assert features is not None
    small = SIZES.log()[:, None]
    plain = TaskFeatures.learn(("size",), features.learned, small)
    changed = TaskFeatures.learn(("size",), features.learned, change(small))
    torch.testing.assert_close(changed.precision, plain.precision)
    at = small[7]
    torch.testing.assert_close(
        changed.weights({"size": float(change(at))}), plain.weights({"size": float(at)}), atol=1e-6, rtol=1e-4
    )


def test_features_beyond_those_of_the_past_are_like_the_last() -> None:
    features = prior().suggester.features
    assert features is not None
    at, beyond = ({"size": size, "moon": 0.0} for size in (float(SIZES.max()), 1e12))
    assert torch.equal(features.weights(at), features.weights(beyond))


def test_precisions_are_a_maximum() -> None:
    """Of the leave-one-out error of each function under the weighted mean of the others, written out."""
    features = prior().suggester.features
    assert features is not None
    functions = features.learned.past.each(features.learned.past.points).mT
    u = scores_of(features.values)

    def objective(precision: Tensor) -> float:
        error = 0.0
        for task in range(NUM_TASKS):
            weights = (-0.5 * (u - u[task]).square() @ precision).exp()
            weights[task] = 0.0
            weights = (1 - EQUAL) * weights / weights.sum() + EQUAL / NUM_TASKS
            weights[task] = 0.0
            guess = (weights / weights.sum()) @ functions
            error += float((functions[task] - guess).square().mean()) / NUM_TASKS
        widths = (precision / 0.1).log() / 1.5
        return -0.5 * math.log(error) - 0.5 * float(widths.square().sum()) / NUM_TASKS

    best = objective(features.precision)
    for factor in (0.9, 1.1):
        for i in range(2):
            moved = features.precision.clone()
            moved[i] *= factor
            assert objective(moved) < best


def test_equal_weights_change_no_belief() -> None:
    learned = GaussianProcess.initial(tasks()).fit(tasks())
    x, rows = tasks().x[0], tasks()[3].rows(slice(0, 4))
    equal = torch.full((NUM_TASKS,), 1 / NUM_TASKS, dtype=torch.float64)
    for known in (lambda p: p, lambda p: p.condition(rows)):
        plain, weighted = known(transfer_hypotheses(learned)), known(transfer_hypotheses(learned, equal))
        torch.testing.assert_close(weighted.marginal(x).mean, plain.marginal(x).mean, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(weighted.weights, plain.weights, atol=1e-8, rtol=1e-6)


def test_weighted_past_functions_are_weighted_moments() -> None:
    learned = GaussianProcess.initial(tasks()).fit(tasks())
    assert learned.past is not None
    weights = torch.rand(NUM_TASKS, generator=seed(3), dtype=torch.float64)
    weights = weights / weights.sum()
    x = torch.rand(5, 1, generator=seed(4), dtype=torch.float64)
    weighted, each = learned.past.weighted(weights), learned.past.each(x)
    mean, directions = weighted(x)
    centred = each - mean[:, None]
    torch.testing.assert_close(mean, each @ weights)
    expected = NUM_TASKS / (NUM_TASKS - 1) * (centred * weights) @ centred.mT
    torch.testing.assert_close(directions @ directions.mT, expected, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(weighted.each(x), each, atol=1e-7, rtol=1e-6)
    with pytest.raises(ValueError, match="no loadings"):
        replace(learned.past, loadings=None).weighted(weights)


@pytest.mark.parametrize("share", [0.9, 1.0 - 1e-9, 1.0])
def test_a_task_that_counts_for_nearly_all_leaves_no_loose_end(share: float) -> None:
    """And what the other tasks did is still known."""
    learned = GaussianProcess.initial(tasks()).fit(tasks())
    assert learned.past is not None
    alone = torch.zeros(NUM_TASKS, dtype=torch.float64)
    alone[2] = 1.0
    weights, x = share * alone + (1.0 - share) / NUM_TASKS, tasks().x[0]
    found = transfer_hypotheses(learned, weights).marginal(x)
    assert bool(found.mean.isfinite().all() and found.variance.isfinite().all())
    torch.testing.assert_close(learned.past.weighted(weights).each(x), learned.past.each(x), atol=1e-7, rtol=1e-6)


def test_past_functions_that_are_all_the_same_have_no_directions_and_can_be_trusted() -> None:
    learned = GaussianProcess.initial(tasks()).fit(tasks())
    assert learned.past is not None
    past, weights = learned.past, torch.full((NUM_TASKS,), 1.0 / NUM_TASKS, dtype=torch.float64)
    assert past.loadings is not None
    same = replace(learned, past=replace(past, directions=past.directions[:, :0], loadings=past.loadings[:0]))
    for hypotheses in (transfer_hypotheses(same), transfer_hypotheses(same, weights)):
        found = hypotheses.condition(tasks()[3].rows(slice(0, 4))).marginal(tasks().x[0])
        assert bool(found.mean.isfinite().all() and found.variance.isfinite().all())


def studies_with_sizes(num: int = 8) -> list[optuna.Study]:
    found = []
    for number, size in enumerate(torch.logspace(1, 5, num).tolist()):
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=shifted(number)))
        study.set_user_attr("size", size)
        study.optimize(objective(size), n_trials=20)
        found.append(study)
    return found


def objective(size: float) -> Callable[[optuna.Trial], float]:
    def run(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        return -((math.log10(rate) / 4 + 1 - best_rate(size)) ** 2)

    return run


def test_a_sampler_reads_features_from_its_study(tmp_path: Path) -> None:
    bm.save(TuningPrior.from_studies(studies_with_sizes(), features=["size"]), tmp_path / "prior")
    sampler = MetaSampler(bm.load(tmp_path / "prior"), seed=shifted(0))
    first = {}
    for size in (20.0, 5e4):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.set_user_attr("size", size)
        study.optimize(objective(size), n_trials=1)
        first[size] = math.log10(study.trials[0].params["rate"]) / 4 + 1
    # eight past studies pull each choice towards what is best on average; without the feature both would be that
    assert best_rate(20.0) - best_rate(5e4) > 0.8
    assert first[20.0] - first[5e4] > 0.3


def test_a_study_without_them_is_told_once_and_goes_on() -> None:
    sampler = MetaSampler.from_studies(studies_with_sizes(), features=["size"], seed=shifted(0))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.warns(UserWarning, match="no user attributes 'size', so that all past studies count alike") as told:
        study.optimize(objective(100.0), n_trials=3)
    assert len(told) == 1
    assert len(study.trials) == 3


def test_a_feature_that_is_no_number_leaves_the_study_to_independent_sampling() -> None:
    sampler = MetaSampler.from_studies(studies_with_sizes(), features=["size"], seed=shifted(0))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.set_user_attr("size", "large")
    with pytest.warns(UserWarning, match=r"'size' of study .* must be a finite number; got 'large'"):
        study.optimize(objective(100.0), n_trials=2)
    assert len(study.trials) == 2


def test_features_from_a_table() -> None:
    rows = past.table(past.studies())
    size = {name: 10.0**i for i, name in enumerate(dict.fromkeys(rows["task"]))}
    import polars as pl

    frame = pl.DataFrame({**rows, "size": [size[name] for name in rows["task"]]})
    known = TuningPrior.from_table(frame, task="task", target="loss", direction="minimize", features=["size"])
    assert known.space.names == ("rate", "drop", "depth", "kind")
    assert known.suggester.features is not None
    assert known.suggester.features.values[:, 0].tolist() == list(size.values())
    known.given({"size": 5.0})
    broken = frame.with_columns(pl.Series("size", range(len(frame))))
    with pytest.raises(
        ValueError, match="feature 'size' must be the same in all rows of a task; it is not in those of 'past 0'"
    ):
        TuningPrior.from_table(broken, task="task", target="loss", direction="minimize", features=["size"])
    with pytest.raises(ValueError, match="column 'rows' does not exist"):
        TuningPrior.from_table(frame, task="task", target="loss", direction="minimize", features=["rows"])


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="learned without features"):
        past.learned().given({"size": 1.0})
    with pytest.raises(ValueError, match="feature 'moon' of the task must be a finite number; got None"):
        prior().given({"size": 1.0})
    with pytest.raises(ValueError, match="feature 'size' of the task must be a finite number; got nan"):
        prior().given({"size": math.nan, "moon": 0.0})
    studies = studies_with_sizes(3)
    with pytest.raises(ValueError, match=r"user attribute 'rows' of study .* must be a finite number; got None"):
        TuningPrior.from_studies(studies, features=["rows"])
    with pytest.raises(ValueError, match="names must be of 2 features; got 1"):
        TuningPrior.fit(SPACE, tasks(), "maximize", feature_names=["size"])
