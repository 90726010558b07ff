"""Sets of arms: what is known of arms is what their rewards say, and the best sets are found."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
from bayesmeta import BetaBernoulli, CorrelatedArms, Data, LinearGaussian, NormalKnownVariance
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.random import randn
from tests.bandits.combinatorial.test_oracles import paths
from tests.bandits.states import same
from tests.families import F64, seed
from tests.seeds import shifted

EDGES = bandits.grid_edges(3, 3)
NUM = len(EDGES)
WAYS = paths(EDGES, 0, 8, directed=True)
PATH = bandits.shortest_path(EDGES, 0, 8, directed=True)
COMMON = (torch.eye(NUM) + 0.3).tril().double()
COSTS = CorrelatedArms(torch.full((NUM,), 3.0).double(), COMMON, F64 + 0.25)
ALIKE = NormalKnownVariance(F64 + 3.0, F64 + 1.0, F64 + 0.25)
X = torch.arange(NUM).double()[:, None]


def diffusion() -> DiffusionPrior:
    theta = truths(40, 1)
    tasks = Data.of(X.expand(40, NUM, 1), theta + 0.5 * randn(theta.shape, like=F64, generator=seed(2)))
    return DiffusionPrior.initial(tasks, num_particles=50)


PRIORS = {"correlated": lambda: COSTS, "independent": lambda: ALIKE, "diffusion": diffusion}


def path_policy(prior: Any, tasks: int | None = None, **options: Any) -> bandits.SemiBandit:
    return bandits.SemiBandit(prior, PATH, range(NUM), tasks=tasks, seed=shifted(0), **options)


def truths(tasks: int, number: int) -> Tensor:
    return 3.0 + randn((tasks, NUM), like=F64, generator=seed(number)) @ COMMON.mT


def play(policy: bandits.SemiBandit, truth: Tensor, rounds: int, number: int) -> Tensor:
    """Cost of each task and round beyond that of its best path."""
    best = torch.stack([truth[:, way].sum(-1) for way in WAYS]).amin(0)
    generator, lost = seed(number), []
    for _ in range(rounds):
        choices = policy.choose()
        lost.append((truth * choices.mask).sum(-1) - best)
        seen = truth + 0.5 * torch.randn(truth.shape, generator=generator).double()
        policy.update(choices, choices.pick(seen))
    return torch.stack(lost, -1)


@pytest.mark.parametrize("name", PRIORS)
def test_the_best_path_is_found(name: str) -> None:
    require_that_it_learns(path_policy(PRIORS[name](), tasks=100))


def require_that_it_learns(policy: bandits.SemiBandit) -> None:
    lost = play(policy, truths(100, 2), 30, 3)
    assert lost.min() > -1e-9
    gain = lost[:, 0] - lost[:, -10:].mean(-1)
    assert gain.mean() > 5.0 * gain.std() / len(gain) ** 0.5


def test_lower_bounds_of_costs_find_the_best_path_too() -> None:
    require_that_it_learns(path_policy(COSTS, tasks=100, by="bounds", num_deviations=-1.0))


@pytest.mark.parametrize(("by", "deviations"), [("means", 0.0), ("bounds", -1.0)])
def test_means_and_bounds_are_those_of_the_posterior(by: str, deviations: float) -> None:
    policy = path_policy(COSTS, by=by, num_deviations=-1.0)
    policy.update(policy.choose(), torch.ones(4))
    marginal = policy.posterior().marginal(X)
    torch.testing.assert_close(policy.scores()[0], marginal.mean + deviations * marginal.stddev)


def test_the_posterior_is_that_of_the_rows_of_the_chosen_arms() -> None:
    policy, rows = path_policy(COSTS, tasks=2), []
    for number in range(4):
        choices = policy.choose()
        rewards = randn((len(choices.ids),), like=F64, generator=seed(number))
        policy.update(choices, rewards)
        mine = choices.decision == 1
        rows.append((choices.arm[mine][:, None].double(), rewards[mine]))
    x, y = (torch.cat(part) for part in zip(*rows, strict=True))
    expected = COSTS.condition(Data.of(x, y))
    assert policy.posterior(task=1).equals(expected, rtol=1e-10)
    torch.testing.assert_close(policy.expected_rewards()[1], expected.marginal(X).mean)
    assert policy.pulls.sum(-1).tolist() == [4 * 4, 4 * 4]


def test_draws_of_arms_are_of_one_joint_draw() -> None:
    root = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-3, 0.0], [1.0, 0.0, 1e-3]]).double()
    alike = CorrelatedArms(torch.zeros(3).double(), root, F64 + 1.0)
    values = bandits.SemiBandit(alike, bandits.top_k(1), ["a", "b", "c"], seed=shifted(0)).scores(num=50)
    assert (values - values[:, :1]).abs().max() < 0.01
    assert values.std() > 0.1


def test_tasks_together_are_tasks_alone() -> None:
    together, alone = path_policy(COSTS, tasks=3), [path_policy(COSTS) for _ in range(3)]
    for number in range(3):
        choices = together.choose()
        rewards = randn((len(choices.ids),), like=F64, generator=seed(number))
        together.update(choices, rewards)
        for task, policy in enumerate(alone):
            policy.learn(list(choices[task].arms), rewards[choices.decision == task])
    for task, policy in enumerate(alone):
        torch.testing.assert_close(policy.expected_rewards()[0], together.expected_rewards()[task])
        assert torch.equal(policy.pulls, together.pulls[task])


def test_rewards_come_late_in_any_order_and_in_any_form() -> None:
    policies = [path_policy(COSTS, tasks=2) for _ in range(4)]
    chosen = [policy.choose() for policy in policies]
    rewards = randn((len(chosen[0].ids),), like=F64, generator=seed(0))
    policies[0].update(chosen[0], rewards)
    policies[1].update(chosen[1], [rewards[chosen[1].decision == task] for task in range(2)])
    for task in (1, 0):
        policies[2].update(chosen[2][task], rewards[chosen[2].decision == task].tolist())
    for i in torch.randperm(len(rewards), generator=seed(1)).tolist():
        policies[3].update(chosen[3].ids[i], float(rewards[i]))
    for policy in policies[1:]:
        torch.testing.assert_close(policy.expected_rewards(), policies[0].expected_rewards())
        assert policy.num_pending == 0


def test_contexts_and_features_of_arms() -> None:
    prior = LinearGaussian(torch.zeros(3).double(), torch.eye(3).double(), F64 + 1.0)
    features = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.5, 0.5]}
    policy = bandits.SemiBandit(prior, bandits.top_k(2), features, seed=shifted(0))
    choice = policy.choose([2.0])
    assert len(choice) == 2
    policy.update(choice, [1.0, 2.0])
    rows = torch.cat([torch.full((2, 1), 2.0), torch.tensor([features[arm] for arm in choice.arms])], -1).double()
    assert policy.posterior().equals(prior.condition(Data.of(rows, torch.tensor([1.0, 2.0]).double())), rtol=1e-10)
    separate = bandits.SemiBandit(prior, bandits.top_k(2), ["a", "b", "c"], tasks=2, seed=shifted(0))
    choices = separate.choose(torch.ones(2, 3))
    separate.update(choices, torch.ones(4))
    assert choices.sizes.tolist() == [2, 2]


def test_a_ranking_keeps_its_order() -> None:
    policy = bandits.SemiBandit(COSTS, lambda values: [[4, 0, 2]] * len(values), [f"e{i}" for i in range(NUM)])
    choice = policy.choose()
    assert choice.arms == ("e4", "e0", "e2")
    assert policy.choose(num=2)[1].arm.tolist() == [4, 0, 2]
    assert [len(some) for some in policy.choose(num=3)[1:]] == [3, 3]


@pytest.mark.parametrize("name", ["correlated", "independent"])
def test_a_saved_policy_and_copies_go_on_as_it_would_have(name: str, tmp_path: Path) -> None:
    policy = path_policy(PRIORS[name](), tasks=4, by="draws", num_deviations=1.5)
    play(policy, truths(4, 2), 5, 3)
    waiting = policy.choose()
    policy.save(tmp_path / "policy")
    loaded = bandits.SemiBandit.load(tmp_path / "policy", PATH)
    others = [loaded, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))]
    policy.update(waiting, torch.ones(len(waiting.ids)))
    expected = play(policy, truths(4, 2), 5, 4)
    for other in others:
        other.update(waiting.ids, torch.ones(len(waiting.ids)))
        assert torch.equal(play(other, truths(4, 2), 5, 4), expected)
        assert same(other.state().state_dict(), policy.state().state_dict())


@pytest.mark.parametrize("oracle", [bandits.top_k(2), bandits.each_decision(torch.argmax)])
def test_ready_oracles_are_copied_and_pickled(oracle: Any) -> None:
    values = randn((3, NUM), like=F64, generator=seed(1))
    for other in (copy.deepcopy(oracle), pickle.loads(pickle.dumps(oracle))):
        assert [torch.equal(a, b) for a, b in zip(other(values), oracle(values), strict=True)] == [True] * 3


def test_files_of_other_policies(tmp_path: Path) -> None:
    path_policy(COSTS).save(tmp_path / "sets")
    bandits.ThompsonSampling(COSTS, range(NUM)).save(tmp_path / "arms")
    with pytest.raises(ValueError, match=r"it holds a SemiBandit, and not a Policy. Try bandits.SemiBandit.load"):
        bandits.Policy.load(tmp_path / "sets")
    with pytest.raises(ValueError, match="it holds a ThompsonSampling, and not a SemiBandit"):
        bandits.SemiBandit.load(tmp_path / "arms", PATH)
    with pytest.raises(TypeError, match="the oracle must be a function"):
        bandits.SemiBandit.load(tmp_path / "sets", None)


def test_it_may_run_under_inference_mode() -> None:
    expected = play(path_policy(COSTS, tasks=2), truths(2, 2), 3, 3)
    with torch.inference_mode():
        assert torch.equal(play(path_policy(COSTS, tasks=2), truths(2, 2), 3, 3), expected)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, TypeError, "the oracle must return a mask of True and False, or a list .* got None"),
        ([[]], ValueError, "the oracle chose no arm at decision 0"),
        (torch.zeros(1, NUM, dtype=torch.bool), ValueError, "the oracle chose no arm at decision 0"),
        (torch.ones(NUM, dtype=torch.bool), ValueError, r"1 in all; got shape \(12,\)"),
        ([[0], [1]], ValueError, "1 in all; got 2"),
        (7, ValueError, "1 in all; got int"),
        (torch.ones(1, 5, dtype=torch.bool), ValueError, "a mask of the oracle must be of 12 arms"),
        ([[0, 12]], IndexError, "arm 12 of the oracle does not exist: there are 12"),
        ([[-1]], IndexError, "arm -1 of the oracle does not exist"),
        ([[3, 3]], ValueError, "the oracle named arm 3 twice at decision 0"),
        (torch.ones(1, NUM, dtype=torch.long), ValueError, "Is it a mask"),
        ([[0.5]], TypeError, "positions of arms must be whole numbers"),
        ([["a"]], TypeError, "positions of arms must be numbers"),
    ],
)
def test_oracles_that_answer_wrongly(answer: Any, error: type[Exception], message: str) -> None:
    policy = bandits.SemiBandit(COSTS, lambda values: answer, range(NUM))
    with pytest.raises(error, match=message):
        policy.choose()
    assert policy.num_pending == 0


def test_rewards_that_are_refused_change_nothing() -> None:
    coins = bandits.SemiBandit(BetaBernoulli(F64 + 1.0, F64 + 1.0), bandits.top_k(2), [*"abc"])
    choices = coins.choose(num=2)
    before = copy.deepcopy(coins.state().state_dict())
    bad: list[tuple[Any, str]] = [
        ([0.0, 1.0, float("nan"), 1.0], "rewards must be finite"),
        ([0.0, 1.0, 0.5, 1.0], "0 or 1"),
        ([0.0, 1.0, 1.0], "got 4 arms and 3 rewards"),
        ([[0.0, 1.0], [1.0]], "decision 1 has 2 and got 1"),
        (torch.ones(2, 3), "got 4 arms and 6 rewards"),
    ]
    for rewards, message in bad:
        with pytest.raises(ValueError, match=message):
            coins.update(choices, rewards)
    assert same(coins.state().state_dict(), before)
    coins.update(choices, [[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="has had its reward"):
        coins.update(choices[0], [0.0, 1.0])
    with pytest.raises(ValueError, match="a table must have shape"):
        choices.pick(torch.ones(2, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bandits.SemiBandit(COSTS, None, range(NUM)), TypeError, "the oracle must be a function of values"),
        (lambda: bandits.SemiBandit(COSTS, PATH, range(3)), ValueError, "the prior knows 12 arms; got 3 names"),
        (lambda: bandits.SemiBandit("prior", PATH, range(3)), TypeError, "SemiBandit needs a prior"),
        (lambda: path_policy(COSTS, by="luck"), ValueError, "by must be one of 'draws', 'means', 'bounds'; got 'luck'"),
        (lambda: path_policy(COSTS, num_deviations=float("nan")), ValueError, "num_deviations"),
        (lambda: path_policy(COSTS, tasks=2).choose(task=2), IndexError, "task 2 does not exist"),
    ],
)
def test_bad_settings(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_it_says_what_it_is() -> None:
    text = repr(path_policy(COSTS, tasks=2))
    assert text.startswith("SemiBandit for 2 tasks over 12 arms: 0, 1")
    assert "CorrelatedArms" in text
