"""The laws that every policy obeys, unless its case exempts it: functions that fail by an AssertionError.

They are tests of a policy with itself: that it keeps account, and tells the truth of how it chooses. That it chooses
well is for simulations.
"""

import copy
import random
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bandits.decisions.policy import Policy
from bandits.testing.case import Case
from bayesmeta.testing.exemptions import held_to

__all__ = ["LAWS", "Law", "laws_of"]

Law = Callable[[Case], None]

LAWS: list[Law] = []

TASKS = 3
FAR = 900  # numbers of contexts that no policy was asked about before


def law(function: Law) -> Law:
    """Decorator that enters a law."""
    LAWS.append(function)
    return function


def laws_of(case: Case) -> list[Law]:
    """The laws that `case` is held to, to be called with it.

    Raises:
        ValueError: it is exempt from a law that there is not.
    """
    return held_to(LAWS, case.exempt)


def played(case: Case, policy: Policy, rounds: int, start: int = 0) -> list[tuple[Hashable, float | None]]:
    """Arms that a policy for one task chose, and their propensities; three of four choices are rewarded."""
    told = []
    for number in range(start, start + rounds):
        choice = policy.choose(**case.one(number))
        told.append((choice.arm, choice.propensity))
        if number % 4 != 3:
            policy.update(choice, float(case.rewards(1, number)))
    return told


def close(a: Tensor, b: Tensor, case: Case) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=case.rtol, atol=case.rtol)


def same_means(a: Policy, b: Policy, case: Case) -> None:
    """Two policies for one task expect the same rewards."""
    asked = case.several(3, FAR)
    close(a.expected_rewards(**asked), b.expected_rewards(**asked), case)


def refused(call: Callable[..., Any], *args: Any, **options: Any) -> None:
    try:
        call(*args, **options)
    except ValueError:
        return
    raise AssertionError("this must be refused by a ValueError")


@law
def a_batch_of_tasks_equals_a_loop(case: Case) -> None:
    """Not where tasks learn from each other."""
    together, alone = case.policy(TASKS), [case.policy() for _ in range(TASKS)]
    for number in range(5):
        asked, rewards = case.of_each(TASKS, number), case.rewards(TASKS, number)
        choices = together.choose(**asked)
        for task, policy in enumerate(alone):  # made to choose the same
            one = {name: rows[task] for name, rows in asked.items()}
            policy.update(policy.choose(**one, available=[choices.arms[task]]), float(rewards[task]))
        together.update(choices, rewards)
    asked = case.of_each(TASKS, FAR)
    means = together.expected_rewards(**asked)
    for task, policy in enumerate(alone):
        one = {name: rows[task] for name, rows in asked.items()}
        close(policy.expected_rewards(**one)[0], means[task], case)
        assert torch.equal(policy.pulls, together.pulls[task])


@law
def rewards_together_equal_rewards_one_by_one(case: Case) -> None:
    one, other = case.policy(), case.policy()
    choices, rewards = one.choose(**case.several(8, 0)), case.rewards(8, 1)
    assert other.choose(**case.several(8, 0)).arms == choices.arms
    one.update(choices, rewards)
    for choice, reward in zip(choices, rewards.tolist(), strict=True):
        other.update(choice, reward)
    same_means(one, other, case)


@law
def rewards_come_late_and_in_any_order(case: Case) -> None:
    """Not where rewards change with time, so that it matters when they came."""
    one, other = case.policy(), case.policy()
    rewards = case.rewards(10, 1).tolist()
    for policy, order in ((one, (0, 1, 2, 4, 6, 7, 9)), (other, (7, 2, 9, 0, 6, 1, 4))):
        choices = [policy.choose(**case.one(number)) for number in range(10)]
        for i in order:
            policy.update(choices[i].id, rewards[i])
        assert policy.num_pending == 3
    same_means(one, other, case)
    assert torch.equal(one.pulls, other.pulls)


@law
def what_was_decided_elsewhere_is_learned_as_what_was_chosen(case: Case) -> None:
    """Not where a task draws something at its first decision."""
    chosen, told = case.policy(), case.policy()
    asked, rewards = case.several(8, 0), case.rewards(8, 1)
    choices = chosen.choose(**asked)
    chosen.update(choices, rewards)
    told.learn(choices.arms, rewards, context=asked.get("context"))
    same_means(chosen, told, case)
    assert torch.equal(chosen.pulls, told.pulls)


@law
def seeds_repeat_with_and_without_propensities(case: Case) -> None:
    one, other, silent = (case.policy() for _ in range(3))
    silent.propensities = False
    told = played(case, one, 12)
    assert told == played(case, other, 12)
    assert [arm for arm, _ in told] == [arm for arm, _ in played(case, silent, 12)]


@law
def it_may_run_under_inference_mode(case: Case) -> None:
    expected = played(case, case.policy(), 6)
    with torch.inference_mode():
        policy = case.policy()
        told = played(case, policy, 3)
    assert told + played(case, policy, 3, 3) == expected


@law
def a_saved_policy_and_a_copy_go_on_as_it_would_have(case: Case) -> None:
    policy = case.policy()
    played(case, policy, 9)
    copied = copy.deepcopy(policy)
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder) / "policy")
        loaded = type(policy).load(Path(folder) / "policy")
    assert loaded.state().equals(policy.state(), rtol=0.0, atol=0.0)
    told = played(case, policy, 9, 9)
    assert played(case, loaded, 9, 9) == told
    assert played(case, copied, 9, 9) == told
    assert loaded.state().equals(policy.state(), rtol=0.0, atol=0.0)


@law
def propensities_are_how_often_arms_are_chosen(case: Case) -> None:
    policy, n = case.policy(), case.num_draws
    played(case, policy, 6)
    told = policy.probabilities(**case.same(1, FAR))
    probability = told.probability[0].double()
    error = torch.zeros_like(probability) if told.error is None else told.error[0].double()
    torch.testing.assert_close(probability.sum(), torch.ones_like(probability[0]))
    # of copies, since decisions count
    few = copy.deepcopy(policy).choose(**case.same(20, FAR), propensities=True)
    choices = copy.deepcopy(policy).choose(**case.same(n, FAR), propensities=False)
    share = choices.arm.bincount(minlength=len(policy.arms)).double() / n
    # with one more of each sort: an arm that is next to never chosen may be chosen once
    spread = ((probability * (1.0 - probability) + 1.0 / n) / n + error.square()).sqrt()
    assert (share - probability).abs().le(5.0 * spread).all(), f"chosen {share.tolist()}, told {probability.tolist()}"
    assert few.propensity is not None
    doubt = 0.0 if few.propensity_error is None else few.propensity_error.double()
    between = 5.0 * (error[few.arm].square() + doubt * doubt).sqrt() + case.rtol
    assert (few.propensity.double() - probability[few.arm]).abs().le(between).all()


@law
def what_is_not_available_is_not_chosen(case: Case) -> None:
    policy = case.policy()
    played(case, policy, 6)
    mask = torch.rand(40, len(policy.arms), generator=case.seed(3)) < 0.5
    mask[:, 0] |= ~mask.any(-1)
    asked = case.several(40, FAR)
    for propensities in (True, False):
        choices = policy.choose(**asked, available=mask, propensities=propensities)
        assert mask[torch.arange(40), choices.arm].all()
    probability = policy.probabilities(**asked, available=mask).probability
    assert (probability[~mask] == 0).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(40).to(probability))
    assert policy.expected_rewards(**asked, available=mask)[~mask].isneginf().all()
    last = policy.arms[-1]
    assert policy.choose(**case.one(FAR), available=[last]).arm == last


@law
def what_is_refused_changes_nothing(case: Case) -> None:
    policy = case.policy()
    played(case, policy, 6)
    choices = policy.choose(**case.several(3, 0))
    good = case.rewards(3, 1)
    before = copy.deepcopy(policy.state())
    for bad in (float("nan"), float("inf"), *case.bad_rewards):
        some = good.clone()
        some[1] = bad
        refused(policy.update, choices, some)
        refused(policy.update, choices[0], bad)
    for id in (-1, 10**6, 0):  # the first choice has had its reward
        refused(policy.update, id, float(good[0]))
    refused(policy.update, [choices[0].id] * 2, good[:2])
    refused(policy.add_arm, policy.arms[0], **(case.new_arm or {}))
    assert policy.state().equals(before, rtol=0.0, atol=0.0)
    policy.update(choices, good)


@law
def a_new_arm_leaves_the_others_as_they_were(case: Case) -> None:
    policy = case.policy()
    played(case, policy, 8)
    if case.new_arm is None:
        return
    asked, pulls, num = case.several(3, FAR), policy.pulls, len(policy.arms)
    before = policy.expected_rewards(**asked)
    policy.add_arm("new", **case.new_arm)
    assert policy.arms[-1] == "new"
    close(policy.expected_rewards(**asked)[:, :num], before, case)
    assert policy.pulls.tolist() == [*pulls.tolist(), 0]
    policy.update(policy.choose(**case.one(FAR), available=["new"]), float(case.rewards(1, 0)))
    assert int(policy.pulls[-1]) == 1


@law
def an_arm_that_goes_leaves_the_others_as_they_were(case: Case) -> None:
    """Not where rewards of one arm say what kind of task it is, or when it changed."""
    policy = case.policy()
    played(case, policy, 8)
    if case.new_arm is None:
        return
    gone = policy.arms[0]
    for number in range(2):  # so that it has shown something
        policy.update(policy.choose(**case.one(number), available=[gone]), float(case.rewards(1, number)))
    waiting = policy.choose(**case.one(0), available=[gone])
    asked, pulls = case.several(3, FAR), policy.pulls
    before = policy.expected_rewards(**asked)
    policy.remove_arm(gone)
    assert gone not in policy.arms
    close(policy.expected_rewards(**asked), before[:, 1:], case)
    assert torch.equal(policy.pulls, pulls[1:])
    refused(policy.update, waiting, float(case.rewards(1, 0)))


@law
def account_is_kept_in_any_order_of_operations(case: Case) -> None:
    _Operations(case).run(80)


class _Operations:
    """Things that people do to a policy for several tasks, drawn at random, and what must have come of them."""

    def __init__(self, case: Case) -> None:
        self.case, self.policy = case, case.policy(TASKS)
        self.chance = random.Random(case.shift)
        self.waiting: list[Any] = []
        self.rewards = 0

    def run(self, steps: int) -> None:
        changes = () if self.case.new_arm is None else (self.remove, self.add)
        for step in range(steps):
            often = (self.choose, self.choose, self.choose, self.update, self.update, self.save, self.mask)
            self.chance.choice((*often, *changes))(step)
        assert int(self.policy.pulls.sum()) == self.rewards
        assert self.policy.num_pending == sum(one.arm in self.policy.arms for one in self.waiting)

    def choose(self, step: int) -> None:
        with_propensities = self.chance.random() < 0.3
        self.waiting += self.policy.choose(**self.case.of_each(TASKS, step), propensities=with_propensities)

    def update(self, step: int) -> None:
        if not self.waiting:
            return
        choice = self.waiting.pop(self.chance.randrange(len(self.waiting)))
        reward = float(self.case.rewards(1, step))
        if choice.arm in self.policy.arms:
            self.policy.update(choice, reward)
            self.rewards += 1
        else:
            refused(self.policy.update, choice, reward)

    def remove(self, step: int) -> None:
        if len(self.policy.arms) > 2:
            gone = self.chance.choice(self.policy.arms)
            self.rewards -= int(self.policy.pulls[:, self.policy.arms.index(gone)].sum())
            self.policy.remove_arm(gone)

    def add(self, step: int) -> None:
        self.policy.add_arm(f"arm {step}", **(self.case.new_arm or {}))

    def save(self, step: int) -> None:
        """And go on with what was loaded."""
        with tempfile.TemporaryDirectory() as folder:
            self.policy.save(Path(folder) / "policy")
            loaded = type(self.policy).load(Path(folder) / "policy")
        asked = {**self.case.of_each(TASKS, step), "propensities": False}
        choices = self.policy.choose(**asked)
        assert loaded.choose(**asked).arms == choices.arms
        self.policy = loaded
        self.waiting += choices

    def mask(self, step: int) -> None:
        mask = torch.rand(TASKS, len(self.policy.arms), generator=self.case.seed(step)) < 0.5
        mask[:, 0] = True
        choices = self.policy.choose(**self.case.of_each(TASKS, step), available=mask, propensities=False)
        assert mask[torch.arange(TASKS), choices.arm].all()
        self.waiting += choices
