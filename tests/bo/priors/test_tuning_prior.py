"""Learning a prior for tuning: from studies and from tables alike, and from nothing else."""

import functools
from dataclasses import dataclass
from typing import Any

import optuna
import polars as pl
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from optuna.samplers import BaseSampler

import bayesmeta as bm
import bo
from bayesmeta.fields import LearnedFrom
from bayesmeta.random import rand
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.acquisition.suggester import StudyState, Suggestion
from bo.samplers.from_scratch import ScratchSampler
from bo.single_study.baseline import fit_by_botorch, log_expected_improvement
from bo.values import Near
from tests.bayesmeta.test_io import same
from tests.bo.past import NUM_TASKS, NUM_TRIALS, OPTIMUM, SPACE, learned, objective, studies, table
from tests.families import F64, FAMILIES, seed
from tests.seeds import shifted

COLUMNS = {"task": "task", "target": "loss", "direction": "minimize"}


@functools.cache
def frame() -> pl.DataFrame:
    return pl.DataFrame(table(studies()))


def test_a_table_teaches_what_its_studies_do() -> None:
    # tasks of a table are in the order of their names, as the studies are here
    prior = TuningPrior.from_table(frame(), **COLUMNS, space=SearchSpace(SPACE))
    assert prior.learned_from == LearnedFrom(NUM_TASKS, NUM_TASKS * NUM_TRIALS)
    assert prior.space == learned().space
    assert same(prior, learned())


def test_any_dataframe_will_do() -> None:
    pandas = TuningPrior.from_table(frame().to_pandas(), **COLUMNS, space=SearchSpace(SPACE))
    assert same(pandas, learned())


def test_the_space_of_a_table_is_inferred() -> None:
    prior = TuningPrior.from_table(frame(), **COLUMNS)
    assert prior.space.names == tuple(SPACE)
    assert prior.space.distributions["rate"].log
    assert isinstance(prior.space.distributions["depth"], optuna.distributions.IntDistribution)


def test_what_is_expected_does_not_depend_on_the_scale_of_tasks() -> None:
    stretched = frame().with_columns(pl.col("loss") * 1000 + 7)
    assert same(TuningPrior.from_table(stretched, **COLUMNS, space=SearchSpace(SPACE)), learned())


def test_more_is_better_in_scores_whatever_the_direction() -> None:
    best, bad = SearchSpace(SPACE).to_unit([OPTIMUM, {**OPTIMUM, "rate": 1.0, "kind": "linear"}])
    for direction in ("minimize", "maximize"):
        mean = learned(direction).functions.marginal(torch.stack([best, bad])).mean
        assert mean[0] > mean[1] + 0.2
    x = SearchSpace(SPACE).sobol(16, generator=seed(0))
    up, down = (learned(direction).functions.marginal(x).mean for direction in ("maximize", "minimize"))
    torch.testing.assert_close(up, down)


def test_starts_are_the_best_of_each_task() -> None:
    best = [study.best_params for study in studies()]
    starts = learned().starts
    assert len(starts) == len(torch.unique(SearchSpace(SPACE).to_unit(best), dim=0))
    for row in SearchSpace(SPACE).to_unit(best):
        assert (starts == row).all(-1).any()


def test_tasks_that_are_left_out_leave_no_trace() -> None:
    """Whatever a held-out task holds, a prior learned without it is the same to the bit."""
    names = sorted(frame()["task"].unique())
    past = frame().filter(pl.col("task") != names[-1])
    again = past.vstack(frame().filter(pl.col("task") == names[-1]).with_columns(pl.col("loss") * -1))
    first = TuningPrior.from_table(past, **COLUMNS, space=SearchSpace(SPACE))
    second = TuningPrior.from_table(again.filter(pl.col("task").is_in(names[:-1])), **COLUMNS, space=SearchSpace(SPACE))
    assert same(first, second)
    assert first.learned_from == LearnedFrom(NUM_TASKS - 1, (NUM_TASKS - 1) * NUM_TRIALS)


def test_constant_tasks_are_ignored() -> None:
    flat = frame().head(5).with_columns(task=pl.lit("zz flat"), loss=pl.lit(1.0))
    assert same(TuningPrior.from_table(pl.concat([frame(), flat]), **COLUMNS, space=SearchSpace(SPACE)), learned())


def test_tasks_keep_their_names() -> None:
    assert learned().task_names == tuple(f"past {task}" for task in range(NUM_TASKS))
    numbered = frame().with_columns(pl.col("task").str.tail(1).cast(int))
    flat = frame().head(5).with_columns(task=pl.lit(-1), loss=pl.lit(1.0)).select(frame().columns)
    prior = TuningPrior.from_table(pl.concat([numbered, flat], how="vertical_relaxed"), **COLUMNS)
    assert prior.task_names == tuple(map(str, range(NUM_TASKS)))  # the flat one taught nothing
    with pytest.raises(ValueError, match="task_names must name 2 tasks; got 1"):
        TuningPrior.fit(prior.space, bm.Data.of(torch.ones(2, 3, 6), torch.ones(2, 3)), "minimize", task_names=["a"])


def test_learning_twice_gives_the_same_prior() -> None:
    assert same(TuningPrior.from_studies(studies()), learned())


# ---- what cannot be learned from


def where_deep(column: str, otherwise: float | None = None) -> pl.Expr:
    return pl.when(pl.col("depth") > 5).then(pl.col(column)).otherwise(otherwise).alias(column)


def over_zero(column: str) -> pl.Expr:
    return (1 / (pl.col("depth") - 3)).alias(column)


BAD_TABLES = {
    "no task column": ([pl.exclude("task")], r"column 'task' does not exist: the columns are rate, drop"),
    "no target column": ([pl.exclude("loss")], r"column 'loss' does not exist"),
    "constant target": (pl.lit(2.0).alias("loss"), r"two tasks or more whose target varies; got 0 of 6"),
    "one task": (pl.lit("one").alias("task"), r"two tasks or more whose target varies; got 1 of 1"),
    "one varying task": (
        pl.when(pl.col("task") == "past 1").then(pl.col("loss")).otherwise(0.0).alias("loss"),
        r"got 1 of 6\. Check the target column",
    ),
    "no rows": ([pl.all().head(0)], r"the table has no rows"),
    "NaN target": (
        where_deep("loss", float("nan")),
        r"'loss' must hold finite numbers; \d+ rows are not, the first in",
    ),
    "missing target": (where_deep("loss"), r"missing or NaN"),
    "infinite target": (over_zero("loss"), r"'loss' must hold finite numbers.*inf"),
    "words as target": (pl.lit("low").alias("loss"), r"'loss' must hold numbers"),
    "missing task": (where_deep("task"), r"must name a task in every row"),
    "constant parameter": (pl.lit(0.5).alias("drop"), r"'drop' must vary over the table"),
    "infinite parameter": (over_zero("drop"), r"'drop' must be finite"),
}


@pytest.mark.parametrize(("change", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_bad_tables_are_refused(change: pl.Expr | list[pl.Expr], message: str) -> None:
    bad = frame().select(change) if isinstance(change, list) else frame().with_columns(change)
    with pytest.raises(ValueError, match=message):
        TuningPrior.from_table(bad, **COLUMNS)


def test_a_direction_is_one_of_two() -> None:
    with pytest.raises(ValueError, match=r"direction must be .*; got 'up'"):
        TuningPrior.from_table(frame(), task="task", target="loss", direction="up")


def test_values_outside_a_given_space_are_refused() -> None:
    narrow = SearchSpace({**SPACE, "depth": optuna.distributions.IntDistribution(1, 3)})
    with pytest.raises(ValueError, match=r"depth of row \d+ must be a value of"):
        TuningPrior.from_table(frame(), **COLUMNS, space=narrow)


def test_a_given_space_must_have_its_columns() -> None:
    with pytest.raises(ValueError, match="column 'rate' does not exist: the columns are task, drop"):
        TuningPrior.from_table(frame().drop("rate"), **COLUMNS, space=SearchSpace(SPACE))


def test_sources_of_studies_are_told_from_others() -> None:
    with pytest.raises(TypeError, match="must be Optuna studies, a storage of them, or the URL"):
        TuningPrior.from_studies(3)


def empty_study(**options) -> optuna.Study:
    return optuna.create_study(**options)


def test_studies_that_cannot_be_used_are_refused() -> None:
    past = studies(num=2)
    with pytest.raises(ValueError, match=r"two studies with completed trials; got 0 of 0"):
        TuningPrior.from_studies([])
    with pytest.raises(ValueError, match=r"two studies with completed trials; got 1 of 2"):
        TuningPrior.from_studies([past[0], empty_study()])
    with pytest.raises(ValueError, match=r"'two' has 2 objectives; one is needed"):
        TuningPrior.from_studies([*past, empty_study(study_name="two", directions=["minimize", "maximize"])])
    with pytest.raises(ValueError, match=r"one direction; got \{'maximize': 'up', 'minimize': 'past 0'\}"):
        TuningPrior.from_studies([*past, empty_study(study_name="up", direction="maximize")])


def test_trials_that_failed_or_diverged_do_not_stop_learning() -> None:
    past = studies(num=2)
    past[0].add_trial(optuna.trial.create_trial(params=OPTIMUM, distributions=SPACE, value=float("inf")))
    past[0].add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    past[1].enqueue_trial(OPTIMUM)  # waits, and has no value
    prior = TuningPrior.from_studies([*past, empty_study()])
    assert prior.learned_from == LearnedFrom(2, 2 * NUM_TRIALS + 1)


def test_the_prior_of_a_study_can_differ_in_its_parameters() -> None:
    """Conditional parameters: those that a trial lacks are missing."""

    def conditional(trial: optuna.Trial) -> float:
        return objective(1)(trial) + (trial.suggest_float("extra", 0.0, 1.0) if trial.params["kind"] == "tree" else 0.0)

    past = studies(num=2)
    past[1].optimize(conditional, n_trials=40)  # a third of them trees
    prior = TuningPrior.from_studies(past)
    assert "extra" in prior.space.names


def test_moving_a_prior_keeps_it_whole() -> None:
    moved = learned().to(torch.float64)
    assert isinstance(moved, TuningPrior)
    assert same(moved, learned())
    assert sum(bm.trust(moved.functions).values()).item() == pytest.approx(1.0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_tuning_without_gradients(mode: Any) -> None:
    """What is learned inside is what is learned outside, and can be used on either side."""
    past, family = studies(num=3), FAMILIES["gaussian_process"]
    expected = TuningPrior.from_studies(past)
    with mode():
        prior = TuningPrior.from_studies(past)
        process = family.prior.to(torch.float32).to(torch.float64).condition(family.rows(5))
        tune(bo.MetaSampler(prior, seed=shifted(0)))
        tune(ScratchSampler(prior.space, seed=shifted(0)))
        assert bo.thompson_points(prior.functions, prior.space, 2, generator=seed(0)).isfinite().all()
        x, y = rand((8, 2), like=F64, generator=seed(1)), rand((8,), like=F64, generator=seed(2))
        log_expected_improvement(x, y, fit=fit_by_botorch)
        points = prior.space.sobol(4, generator=seed(0)).expand(2, -1, -1)
        assert bo.fit_rgpe(prior.space, bm.Data.of(points, y.reshape(2, 4)), "minimize", seed=shifted(0)).learned_from
    assert same(prior, expected)
    tune(bo.MetaSampler(prior, seed=shifted(0)))
    x = torch.full((1, 1, 2), 0.5, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(LogExpectedImprovement(bo.Surrogate(process), 0.0)(x).sum(), x)
    assert gradient.isfinite().all()


def tune(sampler: BaseSampler) -> None:
    optuna.create_study(sampler=sampler).optimize(objective(1), n_trials=8)


def test_what_neither_suggests_nor_is_a_posterior_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a suggester, or a posterior with condition and marginal; got object"):
        TuningPrior(SearchSpace(SPACE), "minimize", object())
    with pytest.raises(TypeError, match="got the class AlwaysTheMiddle"):
        TuningPrior(SearchSpace(SPACE), "minimize", AlwaysTheMiddle)
    with pytest.raises(TypeError, match=r"a TuningPrior holds a suggester and is none; give prior\.suggester"):
        TuningPrior(SearchSpace(SPACE), "minimize", learned())
    with pytest.raises(ValueError, match="scores=False is not what the suggester says"):
        TuningPrior(SearchSpace(SPACE), "minimize", learned().suggester, scores=False)
    with pytest.raises(ValueError, match="starts must have 6 columns, as the space has; got 2"):
        TuningPrior(SearchSpace(SPACE), "minimize", learned().suggester, torch.zeros(3, 2))


@dataclass(frozen=True, eq=False)
class AlwaysTheMiddle:
    """A suggester of another package."""

    def suggest(self, study: StudyState) -> Suggestion:
        return Suggestion("middle", Near(torch.full((study.space.num_columns,), 0.5, dtype=torch.float64)))


def test_any_suggester_will_do() -> None:
    space = SearchSpace({"a": SPACE["drop"], "b": SPACE["drop"]})
    prior = TuningPrior(space, "maximize", AlwaysTheMiddle())
    trial = optuna.create_study(direction="maximize", sampler=MetaSampler(prior, seed=shifted(0))).ask(
        space.distributions
    )
    assert trial.params == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.02)
    assert prior.past is None
    assert prior.feature_names == ()
    with pytest.raises(ValueError, match="AlwaysTheMiddle suggests without a posterior"):
        prior.functions.marginal(torch.zeros(1, 2))


@pytest.mark.parametrize("turns", [[], ["list"] * 2, ["list", "list", "past"], ["list", "list", "past", "plain"]])
def test_a_prior_in_float32_suggests_as_in_float64(turns: list[str]) -> None:
    prior = learned()
    x = prior.space.sobol(9, generator=seed(0))
    rows = bm.Data.of(x, x.square().sum(-1))
    at = prior.space.sobol(64, generator=seed(1))
    (turn, value), (other, rounded) = (each.suggest(rows, turns=turns) for each in (prior, prior.to(torch.float32)))
    assert turn == other
    torch.testing.assert_close(value(at), rounded(at), rtol=1e-2, atol=1e-3)
