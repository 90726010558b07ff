"""Environments are pure functions of the round, and simulations count regret as it is defined."""

import math
from typing import Any

import pytest
import torch

import bandits
from bandits.evaluation.environments import Environment
from bayesmeta import BetaBernoulli, CorrelatedArms, GammaPoisson, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted

COINS = BetaBernoulli(torch.tensor([2.0, 5.0, 1.0]).double(), torch.tensor([3.0, 1.0, 1.0]).double())
CORRELATED = CorrelatedArms(torch.tensor([0.0, 1.0]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor(0.1))
LINEAR = LinearGaussian(torch.zeros(2), torch.eye(2), torch.tensor(0.25))
WHEEL = bandits.Wheel(3, 0.5, seed=shifted(0))
JOINED = bandits.Joined(("a", "b", "c"), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))


def environments() -> dict[str, Environment]:
    return {
        "coins": bandits.FromPrior(COINS, ["a", "b", "c"], 5, seed=shifted(0)),
        "correlated": bandits.FromPrior(CORRELATED, range(2), 5, seed=shifted(0)),
        "features": bandits.FromPrior(LINEAR, JOINED, 5, seed=shifted(0)),
        "disjoint": bandits.linear_contextual(5, 4, 3, seed=shifted(0)),
        "counts": bandits.FromPrior(GammaPoisson(F64 + 2, F64 + 1), range(3), 5, seed=shifted(0)),
        "wheel": bandits.Wheel(5, 0.5, seed=shifted(0)),
        "table": bandits.TableReplay(torch.tensor([[1.0, 2.0, math.nan]] * 5)),
    }


@pytest.mark.parametrize("name", environments())
def test_a_round_is_the_same_whenever_it_is_asked_for(name: str) -> None:
    a, b = environments()[name], environments()[name]
    late, early = b.scene(7), b.scene(3)
    for t, scene in ((3, early), (7, late)):
        again = a.scene(t)
        assert again.means.shape == (5, len(a.arms.names))
        torch.testing.assert_close(again.means, scene.means)
        torch.testing.assert_close(again.rewards, scene.rewards)
        if again.context is not None:
            torch.testing.assert_close(again.context, scene.context)


def test_tasks_from_a_prior_are_draws_of_it() -> None:
    environment = bandits.FromPrior(COINS, ["a", "b", "c"], 4000, seed=shifted(1))
    means = environment.scene(0).means
    exact = COINS.marginal()
    for moment, variance in ((means, exact.variance), ((means - exact.mean[:, 0]).square(), None)):
        expected = exact.mean[:, 0] if variance is not None else exact.variance[:, 0]
        assert ((moment.mean(0) - expected).abs() < 5 * moment.std(0) / math.sqrt(4000)).all()
    rewards = torch.stack([environment.scene(t).rewards for t in range(50)]).mean(0)
    assert ((rewards - means).mean(0).abs() < 5 * 0.5 / math.sqrt(50 * 4000)).all()


def test_arms_of_a_correlated_prior_vary_together() -> None:
    means = bandits.FromPrior(CORRELATED, range(2), 5000, seed=shifted(2)).scene(0).means
    covariance = torch.cov(means.T)
    exact = CORRELATED.scale_tril @ CORRELATED.scale_tril.mT
    assert ((covariance - exact).abs() < 0.1).all()


def test_the_wheel_offers_its_great_reward_where_it_should() -> None:
    scene = bandits.Wheel(20_000, 0.8, seed=shifted(3)).scene(0)
    assert scene.context is not None
    radius = scene.context.norm(dim=-1)
    great = (scene.means == 50.0).any(-1)
    assert torch.equal(great, radius > 0.8)
    assert abs(float(great.float().mean()) - (1 - 0.64)) < 5 * 0.48 / math.sqrt(20_000)
    arm = scene.means[great].argmax(-1)
    assert arm.unique().tolist() == [1, 2, 3, 4]
    right = (scene.context[great] > 0).all(-1)
    assert (arm[right] == 1).all()


def test_regret_is_of_the_best_available_arm() -> None:
    table = torch.tensor([[1.0, 5.0, 3.0], [2.0, math.nan, 0.0]])
    environment = bandits.TableReplay(table)
    policy = bandits.UniformlyRandom(range(3), tasks=2, seed=shifted(0))
    run = bandits.simulate(policy, environment, 40)
    best = torch.tensor([5.0, 2.0])
    torch.testing.assert_close(run.regret, best[:, None] - run.rewards)
    assert not (run.arms[1] == 1).any()
    torch.testing.assert_close(run.cumulative[:, -1], run.total)


def test_where_no_arm_is_shown_twice_the_best_order_has_no_regret() -> None:
    table = torch.tensor([[1.0, 5.0, 3.0, 2.0], [2.0, 7.0, 0.0, 4.0]])
    environment = bandits.TableReplay(table)
    prior = CorrelatedArms(torch.zeros(4), torch.eye(4), torch.tensor(1.0))
    policy = bandits.ThompsonSampling(prior, range(4), tasks=2, seed=shifted(0))
    run = bandits.simulate(policy, environment, 3, repeats=False)
    for task in range(2):
        assert len(run.arms[task].unique()) == 3
    best = table.sort(-1, descending=True).values[:, :3].sum(-1)
    torch.testing.assert_close(run.total, best - run.rewards.sum(-1))
    with pytest.raises(ValueError, match=r"task 0 has no arm left in round 4: play fewer rounds"):
        bandits.simulate(bandits.UniformlyRandom(range(4), tasks=2), environment, 5, repeats=False)


def test_late_rewards_are_learned_from_late() -> None:
    environment = bandits.FromPrior(COINS, ["a", "b", "c"], 6, seed=shifted(0))
    policy = bandits.ThompsonSampling(COINS, ["a", "b", "c"], tasks=6, seed=shifted(0))
    bandits.simulate(policy, environment, 10, delay=4)
    assert policy.num_pending == 4 * 6
    assert int(policy.pulls.sum()) == 6 * 6


def test_policies_are_compared_on_the_same_luck_and_the_right_prior_is_better() -> None:
    environment = bandits.FromPrior(COINS, ["a", "b", "c"], 400, seed=shifted(4))
    ones = BetaBernoulli(torch.tensor(1.0), torch.tensor(1.0))

    def thompson(prior: Any) -> Any:
        return lambda e: bandits.ThompsonSampling(prior, e.arms, tasks=e.num_tasks, seed=shifted(0), propensities=False)

    runs = bandits.compare({"right": thompson(COINS), "vague": thompson(ones)}, environment, 60)
    saved = runs["vague"].total - runs["right"].total
    assert saved.mean() > 5 * saved.std() / math.sqrt(400)
    both = runs["right"].arms == runs["vague"].arms
    torch.testing.assert_close(runs["right"].rewards[both], runs["vague"].rewards[both])


def test_regret_is_plotted_with_its_interval() -> None:
    regret = torch.rand(30, 12, generator=seed(5), dtype=torch.float64)
    ax = bandits.plot_regret({"ours": regret, "theirs": 2 * regret}, level=0.9)
    ours, band = ax.get_lines()[0], ax.collections[0]
    torch.testing.assert_close(torch.as_tensor(ours.get_ydata()), regret.cumsum(-1).mean(0))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "theirs"]
    half = 1.6991 * regret.cumsum(-1)[:, -1].std() / math.sqrt(30)  # quantile of a t with 29 degrees of freedom
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(float(regret.cumsum(-1)[:, -1].mean() + half), rel=1e-3)
    assert "90% interval of the mean" in ax.get_ylabel()
    assert "interval" not in bandits.plot_regret({"one task": regret[:1]}).get_ylabel()
    with pytest.raises(ValueError, match="at least one policy"):
        bandits.plot_regret({})
    with pytest.raises(ValueError, match=r"level must be between 0 and 1; got 90.0"):
        bandits.plot_regret({"ours": regret}, level=90.0)


def test_intervals_of_regret_are_not_negative_where_regret_is_not() -> None:
    regret = torch.tensor([[0.0, 0.1, 0.1], [1.0, 5.0, 0.2]], dtype=torch.float64)
    ax = bandits.plot_regret({"few tasks": regret})
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == 0.0
    assert ax.get_ylim()[0] == 0.0
    realised = bandits.plot_regret({"few tasks": regret - 1.0})
    assert realised.get_ylim()[0] < realised.collections[0].get_paths()[0].vertices[:, 1].min() < -1.0


def test_many_policies_share_axes_and_their_legend_hides_no_curve() -> None:
    regret = torch.rand(30, 12, generator=seed(6), dtype=torch.float64)
    ax = bandits.plot_regret({f"a policy whose name is long, number {i}": regret for i in range(8)})
    figure: Any = ax.figure
    figure.draw_without_rendering()
    legend: Any = ax.get_legend()
    box = legend.get_window_extent()
    assert box.y0 >= ax.get_window_extent().y1 - 1
    assert box.x0 >= 0
    assert box.y1 <= figure.bbox.y1
    assert ax.get_window_extent().height > 200
    bandits.plot_regret({"worse than all": 10.0 * regret}, ax=ax)
    assert ax.get_ylim()[1] > 10.0 * float(regret.sum(-1).mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bandits.TableReplay(torch.zeros(3)), r"a table must have shape \(tasks, arms\); got \(3,\)"),
        (lambda: bandits.TableReplay(torch.tensor([[1.0], [math.nan]])), "task 1 has no reward in the table"),
        (lambda: bandits.TableReplay(torch.zeros(2, 3), names=["a"]), "names must name 3 arms; got 1"),
        (lambda: bandits.Wheel(3, 1.5, seed=shifted(0)), "delta must be from 0 to 1; got 1.5"),
        (
            lambda: bandits.simulate(bandits.UniformlyRandom(range(4), tasks=3), WHEEL, 2),
            "the policy must have 3 tasks and 5 arms; it has 3 and 4",
        ),
    ],
)
def test_bad_simulations(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_is_printed_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    """A bar that is piped would leave a blank line."""
    policies = {"any": lambda environment: bandits.UniformlyRandom(environment.arms, tasks=200, propensities=False)}
    means = torch.rand(200, 3, generator=seed(0))
    bandits.compare(policies, bandits.TableReplay(means), 110)
    assert capfd.readouterr().out == ""
