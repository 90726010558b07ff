"""Tasks that run together: against posteriors written out in NumPy, exact full Bayes, and each other."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import bandits
from bandits.beliefs.running import running_together
from bandits.beliefs.while_tasks_run import Running
from bayesmeta import (
    BetaBernoulli,
    CorrelatedArms,
    Data,
    Hyperposterior,
    LinearGaussian,
    LinearHyperposterior,
)
from tests.bandits.hierts_reference import ARMS, NOISE_VAR, SHARED_SD, TASK_SD, TASKS, D, drawn_run, played, reference
from tests.bandits.states import same, snapshot
from tests.families import F64, seed
from tests.seeds import shifted


def linear_belief(d: int = D) -> LinearHyperposterior:
    eye = torch.eye(d, dtype=torch.float64)
    prior = LinearGaussian(torch.zeros(d, dtype=torch.float64), eye / TASK_SD**2, F64 + NOISE_VAR)
    return LinearHyperposterior(prior, eye * SHARED_SD**2)


def test_hierarchical_thompson_sampling_regrets_what_the_reference_does() -> None:
    differences, ours, vague = [], [], []
    for number in range(12):
        features, theta, noise = drawn_run(number)
        joined = bandits.Joined(tuple(range(ARMS)), torch.from_numpy(features))
        options: dict[str, Any] = {"tasks": TASKS, "seed": shifted(number), "propensities": False}
        policy = bandits.HierTS(linear_belief(), joined, **options)
        flat = LinearGaussian(
            torch.zeros(D).double(), torch.eye(D).double() / (SHARED_SD**2 + TASK_SD**2), F64 + NOISE_VAR
        )
        ours.append(played(policy, features, theta, noise).sum())
        vague.append(played(bandits.ThompsonSampling(flat, joined, **options), features, theta, noise).sum())
        differences.append(
            ours[-1] - reference(features, theta, noise, np.random.default_rng(shifted(1000 + number))).sum()
        )
    assert scipy.stats.ttest_1samp(differences, 0.0).pvalue > 1e-6
    assert np.mean(ours) < 0.5 * np.mean(vague)


@pytest.mark.parametrize("together", [True, False])
def test_the_state_is_the_exact_joint_posterior(together: bool) -> None:
    """All weights of all tasks and the shared mean as one Gaussian, conditioned at once."""
    generator = seed(0)
    tasks, rows = 3, 12
    x = torch.randn(rows, D, generator=generator).double()
    y, task = torch.randn(rows, generator=generator).double(), torch.randint(tasks, (rows,), generator=generator)
    state = running_together(linear_belief(), "redraw").online((tasks,))
    if together:
        state.add((task,), x, y)
    else:
        for i in range(rows):
            state.add((task[i : i + 1],), x[i : i + 1], y[i : i + 1])
    eye = torch.eye(D).double()
    cov = SHARED_SD**2 * torch.ones(tasks, tasks).double() + TASK_SD**2 * torch.eye(tasks).double()
    whole = LinearGaussian(torch.zeros(tasks * D).double(), torch.linalg.inv(torch.kron(cov, eye)), F64 + NOISE_VAR)
    wide = torch.zeros(rows, tasks, D).double()
    wide[torch.arange(rows), task] = x
    exact = whole.condition(Data.of(wide.flatten(1), y))
    queries = torch.randn(2, D, generator=generator).double()
    for s in range(tasks):
        at = torch.zeros(2, tasks, D).double()
        at[:, s] = queries
        mean, root = state.joint(queries[None], s)
        joint = exact.joint(at.flatten(1))
        torch.testing.assert_close(mean[0], joint.mean)
        torch.testing.assert_close(root[0] @ root[0].mT, joint.covariance_matrix)
        posterior = state.posterior(s)
        torch.testing.assert_close(posterior.marginal(queries).variance, joint.variance)
        torch.testing.assert_close(posterior.marginal(queries).mean, joint.mean)


def test_a_task_that_keeps_to_itself_is_the_marginal_prior_conditioned() -> None:
    belief, generator = linear_belief(), seed(1)
    x, y = torch.randn(6, D, generator=generator).double(), torch.randn(6, generator=generator).double()
    state = running_together(belief, "marginal").online((3,))
    every = torch.arange(3)
    state.begin(every[:2], generator)
    state.add((torch.tensor([0, 0, 1, 0, 0, 1]),), x, y)
    exact = belief.marginal().condition(Data.of(x[[0, 1, 3, 4]], y[[0, 1, 3, 4]]))
    torch.testing.assert_close(state.posterior(0).loc, exact.loc)
    torch.testing.assert_close(state.posterior(0).precision, exact.precision, rtol=1e-6, atol=1e-6)
    # a task that begins later knows what these two have shown
    belief.update(0, Data.of(x[[0, 1, 3, 4]], y[[0, 1, 3, 4]]))
    belief.update(1, Data.of(x[[2, 5]], y[[2, 5]]))
    state.begin(every, generator)
    torch.testing.assert_close(state.posterior(2).loc, belief.marginal().loc)
    torch.testing.assert_close(state.posterior(2).precision, belief.marginal().precision, rtol=1e-6, atol=1e-6)


def test_a_task_that_keeps_a_draw_has_its_spread_about_it() -> None:
    state = running_together(linear_belief(), "keep").online((400,))
    state.begin(torch.arange(400), seed(2))
    posterior = state.posterior()
    torch.testing.assert_close(posterior.precision[0], torch.eye(D).double() / TASK_SD**2)
    spread = posterior.loc.std(0)
    assert ((spread - SHARED_SD).abs() < 5 * SHARED_SD / math.sqrt(800)).all()
    before = posterior.loc.clone()
    state.add((torch.tensor([1]),), torch.ones(1, D).double(), torch.tensor([5.0]).double())
    after = state.posterior()
    torch.testing.assert_close(after.loc[0], before[0])
    own = LinearGaussian(before[1], posterior.precision[1], F64 + NOISE_VAR)
    exact = own.condition(Data.of(torch.ones(1, D).double(), torch.tensor([5.0]).double()))
    torch.testing.assert_close(after.loc[1], exact.loc)


def beta_draws(a: float, b: float, num: int, number: int) -> Tensor:
    uniform = torch.rand(num, generator=seed(number)).numpy()
    return torch.as_tensor(scipy.stats.beta.ppf(uniform, a, b))


def past_coins(tasks: int = 20, rows: int = 30, number: int = 0) -> Data:
    p = beta_draws(6.0, 14.0, tasks, 3 + 100 * number)
    y = (torch.rand(tasks, rows, generator=seed(30 + 100 * number)) < p[:, None]).double()
    return Data(torch.zeros(tasks, rows, 0).double(), y, torch.ones(tasks, rows, dtype=torch.bool))


def coin_belief(num_draws: int = 4000, number: int = 0) -> Hyperposterior:
    past = past_coins(number=number)
    return Hyperposterior.fit(BetaBernoulli.initial(past), past, num_draws=num_draws, generator=seed(4))


def test_tasks_of_any_family_share_hyperparameters_exactly() -> None:
    """Against the hyperposterior that is updated task by task."""
    belief = coin_belief()
    state = Running.of(belief, "redraw", num_draws=4000).online((4, 2))
    y = (torch.rand(60, generator=seed(5)) < 0.8).double()
    task, arm = torch.arange(60) % 3, torch.ones(60, dtype=torch.long)
    state.add((task, arm), torch.zeros(60, 0).double(), y)
    for t in range(3):
        rows = y[task == t]
        belief.update(t, Data.of(torch.zeros(len(rows), 0).double(), rows), generator=seed(12))
    new = belief.marginal(1000, generator=seed(6)).predict(torch.zeros(1, 0).double()).mean
    shown = state.posterior(3).predict(torch.zeros(1, 0).double()).mean[:, 0]
    assert float(shown[1]) == pytest.approx(float(new), abs=0.02)
    # the other arm learns nothing from this one
    untouched = coin_belief().marginal(1000, generator=seed(6)).predict(torch.zeros(1, 0).double()).mean
    assert float(shown[0]) == pytest.approx(float(untouched), abs=0.02)
    assert shown[1] > shown[0] + 0.02


def test_draws_are_renewed_where_few_count() -> None:
    state = running_together(coin_belief(), "redraw").online((200, 1))
    p, generator = beta_draws(40.0, 10.0, 200, 7), seed(70)
    draws = state._draws.clone()
    for _ in range(40):
        y = (torch.rand(200, generator=generator) < p).double()
        state.add((torch.arange(200), torch.zeros(200, dtype=torch.long)), torch.zeros(200, 0).double(), y)
    assert not torch.equal(draws, state._draws)
    weights = state._log_weights.exp()
    assert float(1 / weights.square().sum()) > 0.2 * weights.shape[-1]
    both = torch.cat([past_coins().y.mean(1), p])
    assert state._evidence.shape == (200, 1, weights.shape[-1])
    new = float((weights * state._priors.predict().mean[..., 0]).sum())
    assert new == pytest.approx(float(both.mean()), abs=0.05)


@pytest.mark.parametrize("kind", [bandits.HierTS, bandits.AdaTS, bandits.MetaTS])
def test_tasks_that_come_one_after_another_learn_from_those_before(kind: Any) -> None:
    """Two arms, of which the second is the better in all tasks: later tasks know."""
    early, late = 0.0, 0.0
    for number in range(5):
        belief = coin_belief(400, number)
        policy = kind(belief, ["a", "b"], tasks=20, seed=shifted(number), propensities=False)
        generator = seed(number)
        for task in range(20):
            for _ in range(40):
                choice = policy.choose(task=task)
                good = 0.75 if choice.arm == "b" else 0.35
                early += (0.75 - good) * (task < 5)
                late += (0.75 - good) * (task >= 15)
                policy.update(choice, float(torch.rand((), generator=generator) < good))
    assert late < early  # of one past about 2 +- 1.3 and 8 +- 2.5


def test_arms_by_number_run_together_too() -> None:
    """Arms are worth 0, 1 and 2 on average, .3 more or less in each task, and a reward .5 more or less than its arm."""
    generator, arm = seed(8), torch.arange(3).repeat(2)

    def means(num: int) -> torch.Tensor:
        return torch.arange(3.0).double() + 0.3 * torch.randn(num, 3, generator=generator).double()

    def noise(*shape: int) -> torch.Tensor:
        return 0.5 * torch.randn(shape, generator=generator).double()

    x = arm.double()[:, None].expand(12, 6, 1)
    data = Data(x, means(12)[:, arm] + noise(12, 6), torch.ones(12, 6, dtype=torch.bool))
    belief = Hyperposterior.fit(CorrelatedArms.initial(data), data, num_draws=300, generator=generator)
    policy, truth = bandits.HierTS(belief, range(3), tasks=4, seed=shifted(0)), means(4)
    for _ in range(15):
        choices = policy.choose()
        policy.update(choices, truth[torch.arange(4), choices.arm] + noise(4))
    assert float(policy.probabilities().probability[:, 2].mean()) > 0.5


@pytest.mark.parametrize("kind", [bandits.HierTS, bandits.AdaTS, bandits.MetaTS])
@pytest.mark.parametrize("belief", [linear_belief(), coin_belief(200)], ids=["linear", "any"])
def test_policies_go_on_after_a_load_as_they_would_have(kind: Any, belief: Any, tmp_path: Any) -> None:
    arms: Any = ["a", "b", "c"]
    if isinstance(belief, LinearHyperposterior):
        arms = bandits.Joined(("a", "b", "c"), torch.randn(3, D, generator=seed(9)).double())
    policy = kind(belief, arms, tasks=3, seed=shifted(0))
    rewards = (torch.rand(8, 3, generator=seed(10)) < 0.5).double()
    for t in range(4):
        policy.update(policy.choose(), rewards[t])
    policy.save(tmp_path / "policy")
    again = kind.load(tmp_path / "policy")
    for one in (policy, again):
        one.remove_arm("b")
    for t in range(4, 8):
        choices = policy.choose(), again.choose()
        assert choices[0].arms == choices[1].arms
        torch.testing.assert_close(choices[0].propensity, choices[1].propensity)
        policy.update(choices[0], rewards[t])
        again.update(choices[1], rewards[t])
    assert same(snapshot(policy), snapshot(again))
    if not isinstance(belief, LinearHyperposterior):
        policy.add_arm("new")
        assert policy.choose().propensity.shape == (3,)


@pytest.mark.parametrize("kind", [bandits.HierTS, bandits.AdaTS, bandits.MetaTS])
@pytest.mark.parametrize("is_linear", [True, False])
def test_arms_come_and_go_while_tasks_run_together(kind: Any, is_linear: bool) -> None:
    """Those that stay are as they were, and a new one begins with what is known then, also in tasks that have begun."""
    policy = kind(linear_belief() if is_linear else coin_belief(200), ["a", "b", "c"], tasks=3, seed=shifted(0))
    context = torch.ones(3, D).double() if is_linear else None
    x = torch.ones(1, D).double() if is_linear else torch.zeros(1, 0).double()
    for reward in ([1.0, 0.0, 1.0], [0.0, 0.0, 1.0]):
        policy.update(policy.choose(context, propensities=False), reward)
    before = policy.posterior(["a", "c"]).predict(x).mean
    policy.remove_arm("b")
    torch.testing.assert_close(policy.posterior().predict(x).mean, before)
    policy.add_arm("d")
    untouched = linear_belief().marginal() if is_linear else coin_belief(200).marginal(generator=seed(11))
    policy.choose(context, propensities=False)
    new = policy.posterior(["d"]).predict(x).mean
    if kind is bandits.MetaTS:  # each task has drawn a prior of its own
        assert len(new.flatten().unique()) > 1
    else:
        expected = untouched.predict(x).mean.flatten().expand(3)
        torch.testing.assert_close(new.flatten(), expected, atol=0.02, rtol=0.0)
    torch.testing.assert_close(policy.posterior(["a", "c"]).predict(x).mean, before)


def test_a_task_that_learns_before_it_decides_counts_its_rows_once() -> None:
    policy = bandits.AdaTS(linear_belief(), ["a"], tasks=2, seed=shifted(0), propensities=False)
    generator = seed(12)
    x, y = torch.randn(6, D, generator=generator).double(), torch.randn(6, generator=generator).double()
    policy.learn(["a"] * 6, y, context=x, task=0)
    policy.choose(torch.ones(2, D).double())
    exact = linear_belief().marginal().condition(Data.of(x, y))
    torch.testing.assert_close(policy.posterior(task=0).loc[0], exact.loc)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bandits.HierTS(BetaBernoulli(F64 + 1, F64 + 1), ["a"]), TypeError, "belief must be a Hyperposterior"),
        (lambda: running_together(linear_belief(), "often"), ValueError, "how must be one of redraw, marginal, keep"),
    ],
)
def test_bad_beliefs(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_belief_of_ones_own_says_how_it_runs() -> None:
    class Certain:
        """A belief that knows the prior, so that tasks have nothing to learn from each other."""

        def running(self, how: str) -> Any:
            return bandits.Hypotheses.of([BetaBernoulli(F64 + 1, F64 + 1)])

    policy = bandits.HierTS(Certain(), ["a", "b"], tasks=2, seed=shifted(0))
    policy.update(policy.choose(), [1.0, 0.0])
    assert isinstance(policy.prior, bandits.Hypotheses)


def test_bad_rows_change_nothing() -> None:
    policy = bandits.HierTS(coin_belief(200), ["a", "b"], tasks=2, seed=shifted(0))
    policy.update(policy.choose(), [1.0, 0.0])
    before: Tensor = policy.posterior().log_weights.clone()
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        policy.update(policy.choose(), [1.0, 0.5])
    assert torch.equal(policy.posterior().log_weights, before)
