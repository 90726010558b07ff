"""What a prior for tuning is said to believe: shares, surfaces and probabilities that are known; plots."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import optuna
import pytest
import torch
from matplotlib.axes import Axes
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from torch import Tensor
from torch.distributions import Normal

from bayesmeta import Data, GaussianProcess
from bo import (
    SearchSpace,
    TuningPrior,
    parameter_importance,
    plot_importance,
    plot_prior_surface,
    plot_resemblance,
    resemblance,
)
from bo.acquisition.suggester import StudyState, Suggestion
from bo.insight.resemblance import study_rows
from tests.bo.past import NUM_TASKS, SPACE, learned, loss, random_params
from tests.seeds import seed

UNIT = FloatDistribution(0.0, 1.0)
# a degree is there with one of two kernels only
CONDITIONAL = SearchSpace(
    {"kernel": CategoricalDistribution(("rbf", "poly")), "degree": UNIT, "rate": SPACE["rate"]},
    {"degree": ("kernel", ("poly",))},
)


@dataclass
class Known:
    """Functions of past tasks, or what is expected of a new one, that are known."""

    function: Callable[[Tensor], Tensor]

    def each(self, x: Tensor) -> Tensor:
        return self.function(x)

    def condition(self, data: Data) -> "Known":
        return self

    def marginal(self, x: Tensor) -> Normal:
        mean = self.function(x)
        return Normal(mean, torch.ones_like(mean))


@dataclass
class Remembers:
    """A suggester that is only looked at."""

    functions: Known
    past: Known
    scores: bool = True

    def suggest(self, study: StudyState) -> Suggestion:
        raise AssertionError("nothing is to be suggested")


def prior_of(space: SearchSpace | dict[str, BaseDistribution], function: Callable[[Tensor], Tensor]) -> TuningPrior:
    space = space if isinstance(space, SearchSpace) else SearchSpace(space)
    past = Known(lambda x: function(x) if function(x).ndim > 1 else function(x)[:, None])
    return TuningPrior(space, "minimize", Remembers(Known(function), past))


def in_units(prior: TuningPrior) -> TuningPrior:
    """The same numbers, of the objective in its own units."""
    return replace(prior, suggester=replace(prior.suggester, scores=False))


@cache
def study(task: int = 1, num: int = 12, direction: str = "minimize") -> optuna.Study:
    made = optuna.create_study(study_name="the new study", direction=direction)
    for number in range(num):
        params = random_params(number)
        made.add_trial(create_trial(params=params, distributions=SPACE, value=loss(params, shift=0.1 * (task % 3 - 1))))
    return made


# ---- which parameters matter


def test_shares_of_additive_functions_are_those_of_their_terms() -> None:
    space = dict.fromkeys("abcd", UNIT)

    def tasks(x: Tensor) -> Tensor:
        a, b, c, _ = x.unbind(-1)
        # variances: of a uniform number 1/12, of a sine over its period 1/2
        wave = math.sqrt(1 / 6) * torch.sin(2 * math.pi * a)
        return torch.stack([a - 2 * b, 3 + wave + c, torch.full_like(a, 7.0)], -1)

    shares = parameter_importance(prior_of(space, tasks))
    for name, expected in {"a": (0.2, 0.5, 0), "b": (0.8, 0, 0), "c": (0, 0.5, 0), "d": (0, 0, 0)}.items():
        assert shares[name].tolist() == pytest.approx(expected, abs=0.01)


def test_shares_leave_out_what_parameters_explain_only_together() -> None:
    """The function of Ishigami and Homma (1990), whose indices are known."""
    space = dict.fromkeys("abc", FloatDistribution(-math.pi, math.pi))

    def ishigami(x: Tensor) -> Tensor:
        a, b, c = (math.pi * (2 * x - 1)).unbind(-1)
        return a.sin() + 7 * b.sin().square() + 0.1 * c**4 * a.sin()

    shares = parameter_importance(prior_of(space, ishigami))
    for name, expected in {"a": 0.3139, "b": 0.4424, "c": 0.0}.items():
        assert shares[name].item() == pytest.approx(expected, abs=0.01)


def test_parameters_of_all_kinds_have_shares() -> None:
    space = {
        "two": CategoricalDistribution((False, True)),
        "three": CategoricalDistribution(("a", "b", "c")),
        "whole": IntDistribution(1, 1000, log=True),
        "same": IntDistribution(3, 3),
    }
    # one column, three columns, one column: variances 1/4, 9/4 of 2/9, and 1/12
    shares = parameter_importance(prior_of(space, lambda x: x[:, 0] + 1.5 * x[:, 3] + x[:, 4]))
    variances = {"two": 1 / 4, "three": 1 / 2, "whole": 1 / 12}
    assert list(shares) == list(variances)
    for name, variance in variances.items():
        assert shares[name].item() == pytest.approx(variance / sum(variances.values()), abs=0.01)


def test_a_missing_parameter_is_one_value_more() -> None:
    # f is the degree, or 0 without one: Var E[f | kernel] = 1/16, Var f = 1/6 - 1/16
    def function(x: Tensor) -> Tensor:
        return x[:, 0] * x[:, 1]

    shares = parameter_importance(prior_of(CONDITIONAL, function))
    for name, expected in {"kernel": 0.6, "degree": 1.0, "rate": 0.0}.items():
        assert shares[name].item() == pytest.approx(expected, abs=0.01)


def test_importance_is_drawn_by_the_mean_over_tasks() -> None:
    shares = parameter_importance(learned())
    ax = plot_importance(learned())
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == sorted(SPACE, key=lambda name: -float(shares[name].mean()))
    assert names[:2] == ["rate", "kind"]  # as `loss` has it
    drawn = {line.get_label(): np.asarray(line.get_xdata()) for line in ax.lines}
    np.testing.assert_allclose(drawn["mean"], [shares[name].mean() for name in names])
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_xdata()), shares["rate"])
    spread = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(spread, [np.quantile(shares[name], (0.1, 0.9)) for name in names])


def test_of_many_parameters_the_most_important_are_drawn() -> None:
    space: dict[str, BaseDistribution] = {f"p{i}": UNIT for i in range(30)}
    ax = plot_importance(prior_of(space, lambda x: x @ torch.arange(30.0, dtype=x.dtype)))
    assert len(ax.get_yticks()) == 20
    assert ax.get_yticklabels()[0].get_text() == "p29"
    assert "20 of 30 parameters" in ax.get_xlabel()


# ---- what is expected where


def surface(prior: TuningPrior, *names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges along both axes, and what is expected, `(y, x)`."""
    mesh: Any = plot_prior_surface(prior, names).collections[0]
    corners = mesh.get_coordinates()
    return corners[0, :, 0], corners[:, 0, 1], mesh.get_array()


def test_a_surface_is_a_mean_over_the_other_parameters() -> None:
    space = {"rate": SPACE["rate"], "depth": SPACE["depth"], "drop": UNIT, "kind": SPACE["kind"]}
    prior = prior_of(space, lambda x: 3 * x[:, 0] ** 2 + x[:, 0] * x[:, 1] + 6 * x[:, 2] ** 2 - 3 * x[:, 4])
    x, y, z = surface(prior, "rate", "depth")
    assert (x[0], x[-1]) == pytest.approx((1e-4, 1.0))
    np.testing.assert_allclose(x[1:] / x[:-1], (x[-1] / x[0]) ** (1 / 32))
    np.testing.assert_allclose(y, np.arange(0.5, 13))
    rate, depth = (np.arange(32) + 0.5) / 32, (np.arange(12) + 0.5) / 12
    expected = 3 * rate**2 + rate * depth[:, None] + 2 - 1
    np.testing.assert_allclose(z, expected, atol=0.1)  # 64 points of the others
    np.testing.assert_allclose(z - z.mean(), expected - expected.mean(), atol=1e-10)  # the same for all cells


def test_a_surface_has_gaps_where_a_condition_rules_a_parameter_out() -> None:
    prior = prior_of(CONDITIONAL, lambda x: 2 * x[:, 0] + x[:, 1])
    _, y, z = surface(prior, "degree", "kernel")
    assert np.ma.getmaskarray(z)[0].all()
    np.testing.assert_allclose(z[1], 2 + (np.arange(32) + 0.5) / 32)
    np.testing.assert_allclose(y, [-0.5, 0.5, 1.5])
    # and where the category is one of the others, only those points count that have the parameter
    np.testing.assert_allclose(surface(prior, "degree", "rate")[2][0], 2 + (np.arange(32) + 0.5) / 32)


def test_the_two_most_important_parameters_are_the_default() -> None:
    ax = plot_prior_surface(learned())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rate", "kind")
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["linear", "tree", "forest"]
    best = np.unravel_index(ax.collections[0].get_array().argmax(), (3, 32))
    assert best[0] == 1
    assert 3e-3 < 10 ** (-4 + 4 * (best[1] + 0.5) / 32) < 3e-2  # of the past, at 1e-2


def test_by_default_a_surface_is_of_parameters_that_most_points_have_together() -> None:
    ax = plot_prior_surface(prior_of(CONDITIONAL, lambda x: 4 * x[:, 0] + 3 * x[:, 1] + x[:, 2]))
    assert {ax.get_xlabel(), ax.get_ylabel()} == {"kernel", "rate"}, "half of the points have no degree"
    two = SearchSpace({name: CONDITIONAL.distributions[name] for name in ("kernel", "degree")}, CONDITIONAL.conditions)
    alone = plot_prior_surface(prior_of(two, lambda x: 4 * x[:, 0] + x[:, 1]))
    assert (alone.get_xlabel(), len(alone.lines)) == ("kernel", 1)


def test_one_parameter_is_a_curve() -> None:
    space = {"rate": SPACE["rate"]}
    prior = in_units(prior_of(space, lambda x: x[:, 0]))
    ax = plot_prior_surface(prior)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (np.arange(32) + 0.5) / 32)
    assert ax.get_ylabel() == "expected objective, less is better"
    assert ax.get_title() == ""


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_surface_says_which_end_is_better_and_what_its_zero_is(direction: str) -> None:
    prior = replace(prior_of({"rate": SPACE["rate"], "drop": UNIT}, lambda x: x.sum(-1)), direction=direction)
    figure: Any = plot_prior_surface(prior).figure
    for label in (figure.axes[1].get_ylabel(), plot_prior_surface(prior, ["rate"]).get_ylabel()):
        assert "more is better" in label
        assert "0 is the median of the past's rows" in label
        assert ("the lower the objective, the more" in label) == (direction == "minimize")
    better = "less" if direction == "minimize" else "more"
    assert plot_prior_surface(in_units(prior), ["rate"]).get_ylabel() == f"expected objective, {better} is better"


def test_names_that_are_alike_at_one_end_are_told_apart() -> None:
    choices = [f"gradient_boosting_with_{depth}_trees" for depth in ("shallow", "deep", "very_deep")]
    rates = {f"optimizer__learning_rate_of_layer_{layer}": SPACE["rate"] for layer in (1, 2)}
    space = {"kind": CategoricalDistribution(choices), **rates}
    prior = prior_of(space, lambda x: 3 * x[:, 0] + x[:, 3])
    labels = [label.get_text() for label in plot_prior_surface(prior, ["kind"]).get_xticklabels()]
    assert len(set(labels)) == 3
    assert len({label.get_text() for label in plot_importance(prior).get_yticklabels()}) == 3
    of_rates = plot_prior_surface(prior, list(rates))
    assert of_rates.get_xlabel() != of_rates.get_ylabel()
    names = tuple(f"team-a/experiment-2024-11-gradient-boosting-data-set-{i}-final" for i in range(NUM_TASKS))
    ax = plot_resemblance(replace(learned(), task_names=names), study())
    assert len({label.get_text() for label in ax.get_yticklabels()}) == NUM_TASKS + 3
    figure: Any = ax.figure
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x0 >= 0


@pytest.mark.parametrize("names", [[], ["rate", "rate"], ["rate", "drop", "depth"], ["rate", "nothing"]])
def test_wrong_parameters_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="params must be one or two of rate, drop, depth, kind"):
        plot_prior_surface(learned(), names)


# ---- what a study is like


def test_probabilities_add_up_to_one() -> None:
    for num in (0, 1, 12, 100):
        rows = study_rows(learned(), study(num=num))
        assert len(rows.y) == num
        found = resemblance(learned(), rows)
        assert (found.tasks.sum() + found.whole + found.kernel + found.nothing).item() == pytest.approx(1.0)
    first = resemblance(learned(), study_rows(learned(), study(num=0)))
    assert first.tasks.tolist() == pytest.approx([0.3 / NUM_TASKS] * NUM_TASKS)
    assert first.whole == pytest.approx(0.5)


def test_a_study_is_like_the_task_whose_function_it_has() -> None:
    """What single tasks have a say in, next to the past as a whole, falls to the right one, over six studies."""
    prior = learned()
    x = prior.space.sobol(40, generator=seed(1))
    found = [resemblance(prior, Data.of(x, -better)) for better in prior.past.each(x).mT]  # to minimize
    assert all(resembled.nothing < 0.01 for resembled in found)
    say = torch.stack([resembled.tasks for resembled in found])
    assert say.diagonal().sum() > 0.5 * say.sum()


def test_a_study_without_structure_is_like_nothing() -> None:
    """On average over eight studies: some noise happens to look as the past does as a whole."""
    x, generator = learned().space.sobol(40, generator=seed(1)), seed(2)
    noise = torch.randn(8, 40, dtype=torch.float64, generator=generator)
    found = [resemblance(learned(), Data.of(x, y)) for y in noise]
    assert sum(each.nothing + each.kernel for each in found) / 8 > 0.75  # about .95 +- .03, and .2 before any trial


def test_of_many_tasks_some_stand_for_those_near_them() -> None:
    generator = seed(0)
    x = torch.rand(30, 12, 1, dtype=torch.float64, generator=generator)
    optimum = 0.2 + 0.2 * (torch.arange(30.0, dtype=torch.float64) // 8)  # four kinds of task: 8, 8, 8 and 6
    tasks = Data.of(x, (x[..., 0] - optimum[:, None]).square())
    prior = TuningPrior.fit(SearchSpace({"x": UNIT}), tasks, "minimize")
    before = resemblance(prior, Data.of(x[0, :0], tasks.y[0, :0]))
    assert (before.tasks > 0).sum() == 12
    ax = plot_resemblance(prior, optuna.create_study())
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[9] == "like one of 4 others"
    assert len(labels) == 12
    assert all(label.startswith("like task ") for label in labels[1:9])
    near = [int(label.split(" and ")[1].split()[0]) for label in labels[1:9] if "near it" in label]
    assert sum(near) + 8 == round(30 * sum(bar.get_width() for bar in ax.patches[1:9]) / 0.3)


def test_resemblance_is_drawn_as_bars_beside_what_it_was() -> None:
    ax = plot_resemblance(learned(), study())
    found = resemblance(learned(), study_rows(learned(), study()))
    order = found.tasks.argsort(descending=True)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "like the past as a whole",
        *(f"like past {task}" for task in order.tolist()),
        "as smooth as the past, no more",
        "like nothing in the past",
    ]
    expected = [found.whole, *found.tasks[order].tolist(), found.kernel, found.nothing]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(expected)
    before = [0.5, *[0.3 / NUM_TASKS] * NUM_TASKS, 0.05, 0.15]
    assert np.asarray(ax.lines[0].get_xdata()) == pytest.approx(before)
    assert "'the new study'" in ax.get_xlabel()
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"after 12 trials", "before any trial"}


def test_rows_of_a_study_are_what_its_trials_say() -> None:
    made = optuna.create_study()
    params, distributions = random_params(0), {**SPACE, "other": UNIT}
    made.add_trial(create_trial(params={**params, "other": 0.5}, distributions=distributions, value=3.0))
    made.add_trial(create_trial(params=random_params(1), distributions=SPACE, state=TrialState.RUNNING))
    rows = study_rows(learned(), made)
    torch.testing.assert_close(rows.x, SearchSpace(SPACE).to_unit([params]))
    assert rows.y.tolist() == [3.0]


def test_studies_of_other_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="learned to minimize, and study 'the new study' is to maximize"):
        plot_resemblance(learned(), study(direction="maximize"))
    with pytest.raises(ValueError, match="is to minimize and maximize"):
        plot_resemblance(learned(), optuna.create_study(directions=["minimize", "maximize"]))


def test_priors_that_know_no_tasks_are_refused() -> None:
    process = GaussianProcess(torch.ones(1), torch.ones(()), torch.ones(()))
    prior = TuningPrior(SearchSpace({"a": UNIT}), "minimize", process, scores=False)
    with pytest.raises(ValueError, match="does not say what past tasks did"):
        plot_importance(prior)
    with pytest.raises(ValueError, match="does not weigh how far the past applies"):
        plot_resemblance(prior, optuna.create_study())
    assert plot_prior_surface(prior, ["a"]).lines  # which needs no tasks


# ---- all of them


EACH: dict[str, Callable[..., Axes]] = {
    "surface": lambda **kwargs: plot_prior_surface(learned(), **kwargs),
    "importance": lambda **kwargs: plot_importance(learned(), **kwargs),
    "resemblance": lambda **kwargs: plot_resemblance(learned(), study(), **kwargs),
}


@pytest.mark.parametrize("plot", EACH.values(), ids=EACH.keys())
def test_plots_draw_where_they_are_told_and_change_no_settings(plot: Callable[..., Axes]) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    own = matplotlib.figure.Figure().subplots()
    assert plot(ax=own) is own
    assert not plt.get_fignums()
    assert plot().figure.number in plt.get_fignums()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("plot", EACH.values(), ids=EACH.keys())
def test_nothing_is_cut_off(plot: Callable[..., Axes]) -> None:
    ax = plot()
    figure: Any = ax.figure
    figure.draw_without_rendering()
    inside, whole = figure.get_tightbbox(), figure.bbox_inches
    assert inside.x0 >= 0
    assert inside.y0 >= 0
    assert inside.x1 <= whole.x1
    assert inside.y1 <= whole.y1
