"""The wheel bandit of the benchmark of neural processes: streams, the exact answer, and that it runs end to end."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import bandits
from bayesmeta import Data
from bayesmeta.neural_processes import KnowsMoments, Schedule, TaskStream
from benchmarks.neural_processes.few_rows import FewRows
from benchmarks.neural_processes.wheel import MEMBERS, WheelBudget, in_percent, learned, play, wheel
from benchmarks.neural_processes.wheel_exact import RULES, exact_regret, uniform_regret
from benchmarks.neural_processes.wheel_stream import ARMS, NOISE_SD, Interval, WheelStream, right_arm
from tests.seeds import seed, shifted

SCHEDULE = Schedule(2, num_tasks=2, most_known=10, num_asked=4)


def means_of(x: Tensor, delta: float) -> Tensor:
    """Expected rewards, from the definition."""
    arm, radius = x[..., 2], x[..., :2].norm(dim=-1)
    quadrants = {(True, True): 1, (True, False): 2, (False, True): 3, (False, False): 4}
    right = torch.tensor([quadrants[bool(a >= 0), bool(b >= 0)] for a, b in x[..., :2].reshape(-1, 2)])
    good = (radius > delta) & (arm == right.reshape(arm.shape))
    return torch.where(good, 50.0, torch.where(arm == 0, 1.2, 1.0)).double()


def test_rows_are_of_the_wheel() -> None:
    tasks = WheelStream().draw(200, 40, generator=seed(0))
    assert tasks.x.shape == (200, 40, 3)
    assert bool(tasks.mask.all())
    radius, arm = tasks.x[..., :2].norm(dim=-1), tasks.x[..., 2]
    assert float(radius.max()) <= 1.0 + 1e-12
    assert set(arm.unique().tolist()) == set(range(ARMS))
    nearest = torch.stack([(tasks.y - value).abs() for value in (1.0, 1.2, 50.0)]).amin(0)
    assert float(nearest.max()) < 8.0 * NOISE_SD
    error = nearest.square().mean() / NOISE_SD**2 - 1.0
    assert abs(float(error)) < 5.0 * math.sqrt(2.0 / tasks.y.numel())
    # in each task one radius divides the right arm's rewards
    is_right = arm == right_arm(tasks.x)
    far = tasks.y > 25.0
    assert not bool((far & ~is_right).any())
    last_near = radius.masked_fill(~is_right | far, 0.0).amax(-1)
    first_far = radius.masked_fill(~far, 1.0).amin(-1)
    assert bool((last_near <= first_far).all())


def test_right_arms_are_those_of_the_environment() -> None:
    scene = bandits.Wheel(500, 0.0, seed=shifted(0)).scene(0)
    assert scene.context is not None
    torch.testing.assert_close(right_arm(scene.context), scene.means.argmax(-1))
    x = torch.cat([scene.context.double(), right_arm(scene.context)[:, None].double()], -1)
    torch.testing.assert_close(means_of(x, 0.0), scene.means.amax(-1).double())


@pytest.mark.parametrize("filled", [False, True])
def test_moments_are_those_of_the_rewards(filled: bool) -> None:
    stream = WheelStream(filled)
    assert isinstance(stream, TaskStream)
    assert isinstance(stream, KnowsMoments)
    tasks, moments = stream.draw_with_moments(6000, 10, 6, generator=seed(1))
    y = tasks.y[:, 10:]
    assert moments.mean.shape == (6000, 6, 11)
    for after in (0, 3, 10):
        mean, var = moments.mean[..., after], moments.var[..., after]
        gap = (y - mean).mean(-1)
        assert abs(float(gap.mean())) < 5.0 * float(gap.std()) / math.sqrt(len(gap))
        excess = ((y - mean).square() - var).mean(-1)
        assert abs(float(excess.mean())) < 5.0 * float(excess.std()) / math.sqrt(len(excess))
    assert float(moments.var[..., 10].mean()) < 0.8 * float(moments.var[..., 0].mean())


def test_a_filled_round_has_one_reward_and_noise() -> None:
    tasks, _ = WheelStream(filled=True).draw_with_moments(2000, 10, 1, generator=seed(2))
    x, y = tasks.x[:, :10].unflatten(1, (2, 5)), tasks.y[:, :10].unflatten(1, (2, 5))
    torch.testing.assert_close(x[..., :2], x[..., :1, :2].expand_as(x[..., :2]))
    torch.testing.assert_close(x[..., 2].sort(-1).values, torch.arange(5.0).double().expand_as(x[..., 2]))
    is_reward = torch.stack([(y - value).abs() for value in (1.0, 1.2, 50.0)]).amin(0) < 8.0 * NOISE_SD
    assert bool(is_reward.any(-1).all())
    noise = y[~is_reward]
    assert len(noise) > 0.65 * y.numel()
    assert abs(float(noise.mean())) < 0.2
    assert float(noise.abs().max()) < 6.0


def test_an_interval_closes_about_delta() -> None:
    start = Interval(torch.tensor(0.0), torch.tensor(1.0))
    yes, no = torch.tensor(True), torch.tensor(False)
    assert float(start.share_below(torch.tensor(0.3))) == pytest.approx(0.3)
    after = start.given(torch.tensor(0.4), no, yes).given(torch.tensor(0.8), yes, yes)
    assert float(after.share_below(torch.tensor(0.5))) == pytest.approx(0.25)
    assert after.given(torch.tensor(0.6), no, no) == after
    assert float(after.share_below(torch.tensor(0.9))) == 1.0
    assert float(after.share_below(torch.tensor(0.1))) == 0.0


def test_the_exact_learner_loses_what_its_first_decisions_must() -> None:
    """Round one: the right arm is tried where 1 + 49 r > 1.2, and costs 0.2 unless r > delta."""
    tasks, delta = 40_000, 0.7
    environment = bandits.Wheel(tasks, delta, seed=shifted(0))
    regret = exact_regret(environment, 1, RULES["exact"])[:, 0].double()
    error = float(regret.std()) / math.sqrt(tasks)
    assert abs(float(regret.mean()) - 0.2 * (delta**2 - (0.2 / 49.0) ** 2)) < 5.0 * error
    drawn = exact_regret(environment, 1, RULES["exact_thompson"], seed=shifted(0))[:, 0].double()
    # the right arm is tried with probability r, whose density is 2 r
    expected = 0.2 * 2.0 / 3.0 * delta**3 + 48.8 * (1.0 - delta**2 - 2.0 / 3.0 * (1.0 - delta**3))
    assert abs(float(drawn.mean()) - expected) < 5.0 * float(drawn.std()) / math.sqrt(tasks)


def test_the_exact_learner_is_one_that_keeps_all_rewards() -> None:
    """A loop over tasks and rewards, whose belief is a grid of deltas."""
    delta, rounds = 0.8, 60
    environment = bandits.Wheel(4, delta, seed=shifted(1))
    regret = exact_regret(environment, rounds, RULES["exact"])
    grid = (torch.arange(200_000).double() + 0.5) / 200_000
    for task in range(4):
        possible = torch.ones_like(grid, dtype=torch.bool)
        for t in range(rounds):
            scene = environment.scene(t)
            assert scene.context is not None
            radius = float(scene.context[task].double().norm())
            share = float((grid[possible] < radius).double().mean())
            right = int(right_arm(scene.context[task]))
            arm = right if 1.0 + 49.0 * share > 1.2 else 0
            lost = float(scene.means[task].amax() - scene.means[task, arm])
            assert float(regret[task, t]) == pytest.approx(lost, abs=1e-5)
            if arm:
                possible &= (grid < radius) == bool(scene.rewards[task, arm] > 25.0)


def test_uniform_regret_is_that_of_random_arms() -> None:
    environment = bandits.Wheel(400, 0.7, seed=shifted(0))
    generator, played = seed(0), torch.zeros(400).double()
    for t in range(50):
        means = environment.scene(t).means.double()
        arm = torch.randint(ARMS, (400,), generator=generator)
        played += means.amax(-1) - means[torch.arange(400), arm]
    expected = uniform_regret(environment, 50).sum(-1).double()
    gap = played - expected
    assert abs(float(gap.mean())) < 5.0 * float(gap.std()) / math.sqrt(len(gap))
    assert float(expected.mean()) / 50 == pytest.approx(0.51 * 39.16 + 0.49 * 0.16, rel=0.1)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_rows_that_were_known_are_not_kept(name: str) -> None:
    process = learned(replace(MEMBERS[name], schedule=SCHEDULE))
    task, x, y = torch.arange(2), torch.zeros(2, 3).double(), torch.tensor([1.0, 50.0]).double()
    sure = FewRows(process, 3, 1e3).online((2,))
    sure.add((task,), x, y)
    assert sure.num_kept.tolist() == [0, 0]
    curious = FewRows(process, 3, 0.0).online((2,))
    for number in range(4):
        curious.add((task,), x + number, y)
    curious.add((task[:1],), x[:1] + 4.0, y[:1])
    assert curious.num_kept.tolist() == [5, 4]
    posterior = curious.posterior(0)  # of the latest three
    rows = torch.stack([x[0] + number for number in (2.0, 3.0, 4.0)])
    again = process.condition(Data.of(rows, y[0].expand(3)))
    torch.testing.assert_close(posterior.predict(rows).mean, again.predict(rows).mean)
    other = FewRows(process, 3, 0.0).online((2,))
    other.load_state_dict(curious.state_dict())
    asked = x[:, None].expand(2, 5, 3)
    torch.testing.assert_close(other.marginal(asked).mean, curious.marginal(asked).mean)
    at = curious.marginal(asked, torch.tensor([1, 0])).mean
    torch.testing.assert_close(at.flip(0), curious.marginal(asked).mean)
    assert curious.draw(asked, generator=seed(0)).shape == (2, 5)


def test_a_filled_round_is_kept_as_the_stream_has_it() -> None:
    process = learned(replace(MEMBERS["conditional_filled"], schedule=SCHEDULE))
    online = FewRows(process, 2 * ARMS, 0.0, filled=ARMS).online((2,))
    x = torch.tensor([[0.1, 0.2, 3.0], [0.3, 0.4, 0.0]]).double()
    for _ in range(3):
        online.add((torch.arange(2),), x, torch.tensor([1.0, 50.0]).double())
    state = online.state_dict()
    rows, y = state["x"].unflatten(1, (2, ARMS)), state["y"].unflatten(1, (2, ARMS))
    torch.testing.assert_close(rows[..., :2], x[:, None, None, :2].to(rows).expand_as(rows[..., :2]))
    torch.testing.assert_close(rows[..., 2], torch.arange(ARMS).to(rows).expand(2, 2, ARMS))
    torch.testing.assert_close(y[0, :, 3], torch.ones(2).to(y))
    torch.testing.assert_close(y[1, :, 0], torch.full((2,), 50.0).to(y))
    assert float(y[0].abs().max()) < 6.0
    assert online.num_kept.tolist() == [3, 3]
    assert online.posterior().count.tolist() == [2 * ARMS, 2 * ARMS]


def test_percentages() -> None:
    uniform = torch.full((50,), 10.0)
    assert in_percent(0.1 * uniform, uniform) == pytest.approx((10.0, 10.0, 10.0), rel=1e-5)
    percent, low, high = in_percent(torch.arange(50.0), uniform)
    assert low < percent < high
    assert percent == pytest.approx(245.0)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_it_runs_from_end_to_end(name: str) -> None:
    member = replace(MEMBERS[name], schedule=SCHEDULE)
    budget = WheelBudget(3, 8, 1.0)
    process = learned(member)
    figures, rows = wheel({name: (member, process)}, budget, deltas=(0.7, 0.995), seed=shifted(0))
    policies = ["exact", "exact_thompson", "linear_thompson", name]
    assert [f.name for f in figures] == [f"wheel/{delta}/{policy}" for delta in (0.7, 0.995) for policy in policies]
    assert all(row.low <= row.percent <= row.high for row in rows)
    environment = bandits.Wheel(3, 0.7, seed=shifted(0))
    total = play(process, member, environment, 8, seed=shifted(0)).sum(-1)
    expected = 100.0 * float(total.sum() / uniform_regret(environment, 8).sum())
    assert rows[3].percent == pytest.approx(expected, rel=1e-5)
