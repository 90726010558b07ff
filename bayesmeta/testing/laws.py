"""The laws that every family obeys, each for the capabilities it has: functions that fail by an AssertionError.

They are tests of a family with itself. That its formulas are right is for tests against another implementation.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.mixture import Mixture
from bayesmeta.named_fields import named_tensors
from bayesmeta.protocol import Density, Evidence, Joint, Marginal, Posterior, Predictive
from bayesmeta.random import rand, seeded
from bayesmeta.testing.exemptions import held_to
from bayesmeta.testing.family import Family
from bayesmeta.warning_kinds import LimitWarning

__all__ = ["LAWS", "Law", "laws_of"]

Law = Callable[[Family], None]

LAWS: list[tuple[type, Law]] = []  # each with the capability that it is about


def law(capability: type) -> Callable[[Law], Law]:
    """Decorator that enters a law of families with a capability."""

    def enter(function: Law) -> Law:
        LAWS.append((capability, function))
        return function

    return enter


def laws_of(family: Family) -> list[Law]:
    """The laws of what `family` can do, to be called with it.

    Raises:
        ValueError: it is exempt from a law that there is not.
    """
    left = held_to([each for _, each in LAWS], family.exempt)
    return [each for capability, each in LAWS if each in left and isinstance(family.prior, capability)]


def moments(prediction: Distribution) -> tuple[Tensor, Tensor]:
    return prediction.mean, prediction.variance


def close(a: Tensor, b: Tensor, rtol: float) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


def same_predictions(a: Predictive, b: Predictive, x: Tensor, rtol: float) -> None:
    for left, right in zip(moments(a.predict(x)), moments(b.predict(x)), strict=True):
        close(left, right, rtol)


@law(Predictive)
@given(first=st.integers(0, 5), second=st.integers(0, 5), number=st.integers(0, 10**6))
@settings(max_examples=15)
def two_updates_equal_one(family: Family, first: int, second: int, number: int) -> None:
    a, b, x = family.rows(first, number), family.rows(second, number + 1), family.inputs(4, number + 2)
    same_predictions(family.prior.condition(a).condition(b), family.prior.condition(a + b), x, family.rtol * 100)


@law(Predictive)
def no_rows_change_nothing(family: Family) -> None:
    x = family.inputs(4, 1)
    same_predictions(family.prior.condition(family.rows(0)), family.prior, x, family.rtol)


@law(Predictive)
def order_of_rows_is_irrelevant(family: Family) -> None:
    data, x = family.rows(7), family.inputs(4, 1)
    shuffled = data.rows(torch.randperm(7, generator=family.seed(3)))
    same_predictions(family.prior.condition(data), family.prior.condition(shuffled), x, family.rtol * 100)


@law(Predictive)
def a_batch_equals_a_loop(family: Family) -> None:
    tasks = family.tasks([3, 6, 0, 1])
    x = torch.stack([family.inputs(2, i) for i in range(4)])
    batch = family.prior.condition(tasks)
    assert batch.batch_shape == (4,)
    for i in range(4):
        alone = family.prior.condition(tasks[i])
        for left, right in zip(moments(batch.predict(x)), moments(alone.predict(x[i])), strict=True):
            close(left[i], right, family.rtol * 10)


@law(Predictive)
def padding_is_invisible(family: Family) -> None:
    clean = family.tasks([3, 6, 0, 1])
    x, y = clean.x.clone(), clean.y.clone()
    x[~clean.mask], y[~clean.mask] = 1e6, 1e6
    dirty = Data(x, y, clean.mask)
    new_x = torch.stack([family.inputs(2, i) for i in range(4)])
    same_predictions(family.prior.condition(dirty), family.prior.condition(clean), new_x, family.rtol)
    if isinstance(family.prior, Evidence):
        close(family.prior.log_evidence(dirty), family.prior.log_evidence(clean), family.rtol)


@law(Predictive)
def conditioning_leaves_the_prior_unchanged(family: Family) -> None:
    x = family.inputs(3, 1)
    before = [m.clone() for m in moments(family.prior.predict(x))]
    family.prior.condition(family.rows(5))
    for left, right in zip(before, moments(family.prior.predict(x)), strict=True):
        assert torch.equal(left, right)


@law(Posterior)
def draws_agree_with_predict(family: Family) -> None:
    posterior, x = family.prior.condition(family.rows(4)), family.inputs(3, 1)
    each = posterior.sample(family.num_draws, generator=family.generator(2)).predict(x)
    mean, var = moments(posterior.predict(x))
    # law of total variance, with the error of a mean over draws
    error = each.mean.std(0) / family.num_draws**0.5
    assert (each.mean.mean(0) - mean).abs().le(5 * error + 1e-12).all()
    second = each.variance + (each.mean - mean).square()
    error = second.std(0) / family.num_draws**0.5
    assert (second.mean(0) - var).abs().le(5 * error + 1e-12).all()


@law(Posterior)
def one_draw_is_one_function(family: Family) -> None:
    f = family.prior.condition(family.rows(4)).sample(3, generator=family.generator(0))
    x = family.inputs(6, 1)
    rows = -1 - len(family.prior.event_shape)
    whole = f(x)
    assert whole.shape == (3, 6, *family.prior.event_shape)
    close(torch.cat([f(x[:2]), f(x[2:])], rows), whole, 1e-9)
    assert torch.equal(f(x), whole)


@law(Posterior)
def draws_follow_the_generator(family: Family) -> None:
    x = family.inputs(2, 1)
    first, again, other = (family.prior.sample(5, generator=family.generator(number))(x) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@law(Joint)
def joint_agrees_with_draws(family: Family) -> None:
    posterior, x = family.prior.condition(family.rows(4)), family.inputs(3, 1)
    f = posterior.sample(family.num_draws, generator=family.generator(2))(x)
    joint = posterior.joint(x)
    error = f.std(0) / family.num_draws**0.5
    assert (f.mean(0) - joint.mean).abs().le(5 * error + 1e-12).all()
    spread = (f - joint.mean).square()
    assert (spread.mean(0) - joint.variance).abs().le(5 * spread.std(0) / family.num_draws**0.5 + 1e-12).all()


@law(Marginal)
def draws_follow_the_marginal(family: Family) -> None:
    """Its distribution function makes them uniform, and its quantiles undo it."""
    posterior = family.prior.condition(family.rows(3))
    x = family.inputs(4, 1)
    marginal = posterior.marginal(x)
    draws = posterior.sample(family.num_draws, generator=family.generator(2))(x)
    uniform = marginal.cdf(draws)
    for power, mean, var in ((1, 1 / 2, 1 / 12), (2, 1 / 3, 4 / 45)):  # of the moments of a uniform variable
        error = (var / family.num_draws) ** 0.5
        assert (uniform.pow(power).mean(0) - mean).abs().le(5 * error).all()
    if isinstance(posterior, Mixture):
        return
    probability = torch.tensor([0.003, 0.3, 0.5, 0.98]).to(draws)[:, None]
    close(marginal.cdf(marginal.icdf(probability)), probability.expand(-1, 4), 1e-8)


@law(Marginal)
def marginal_is_the_diagonal_of_the_joint(family: Family) -> None:
    if not isinstance(family.prior, Joint):
        return
    prior: Any = family.prior  # which has both
    for posterior, batch in ((prior, ()), (prior.condition(family.tasks([4, 0, 2])), (3,))):
        x = family.inputs(5, 1).expand(*batch, -1, -1)
        marginal, joint = posterior.marginal(x), posterior.joint(x)
        assert marginal.mean.shape == (*batch, 5)
        close(marginal.mean, joint.mean, family.rtol * 10)
        close(marginal.variance, joint.variance, family.rtol * 10)


@law(Evidence)
def evidence_is_the_sum_of_one_step_predictions(family: Family) -> None:
    data = family.rows(6)
    posterior, total = family.prior, data.y.new_zeros(())
    for i in range(6):
        row = data.rows(slice(i, i + 1))
        total = total + posterior.predict(row.x).log_prob(row.y)[0]
        posterior = posterior.condition(row)
    close(family.prior.log_evidence(data), total, family.evidence_rtol or family.rtol * 100)


@law(Hierarchical)
def hyperparameters_have_the_evidence_of_the_prior_that_they_build(family: Family) -> None:
    """All of it: what is the same under every prior would count where families are compared."""
    tasks = family.tasks([6, 3, 0, 5])
    unknown = family.prior.hyperparameters(tasks)
    vector = unknown.start + 0.1
    close(unknown.log_evidence(vector), unknown.build(vector).log_evidence(tasks).double(), family.rtol * 100)


@law(Density)
def parameter_draws_follow_their_density(family: Family) -> None:
    """E_q[p/q] = 1 for q a perturbed posterior: holds only if density, Jacobian and draws agree."""
    wide = family.prior.condition(family.rows(4))
    # one row, and of several the one that says least: more would leave the ratio to a few draws
    pilot = wide.sample_params(500, generator=family.generator(6))
    candidates = [wide.condition(family.rows(1, number=number)) for number in range(1, 9)]
    narrow = min(candidates, key=lambda one: float((one.log_prob(pilot) - wide.log_prob(pilot)).std()))
    params = wide.sample_params(family.num_draws, generator=family.generator(5))
    ratio = (narrow.log_prob(params) - wide.log_prob(params)).exp()
    assert (ratio.mean() - 1.0).abs() < 5 * ratio.std() / family.num_draws**0.5


@law(Predictive)
def moving_to_float32_keeps_the_answer(family: Family) -> None:
    small = family.prior.to(torch.float32)
    for value in named_tensors(small).values():
        assert not value.is_floating_point() or value.dtype == torch.float32
    data, x = family.rows(6), family.inputs(3, 1)
    left = moments(small.condition(data.to(torch.float32)).predict(x.float()))
    for a, b in zip(left, moments(family.prior.condition(data).predict(x)), strict=True):
        assert a.dtype == torch.float32
        close(a.double(), b, 1e-4)


def _drawn_tasks(family: Family, number: int, ones: bool) -> Data:
    """Tasks of the family's own prior, so that they differ; with `ones`, the first column of x is constant."""
    x = torch.stack([family.inputs(6, number + i) for i in range(12)])
    if ones:
        x[..., 0] = 1.0
    draws = family.prior.sample(12, generator=family.generator(number + 20))
    with seeded(family.generator(number + 21)):
        y = torch.stack([draws.predict(x[i]).sample()[i] for i in range(12)])
    return Data.of(x, y, event_dim=len(family.prior.event_shape))


def _moved(family: Family, tasks: Data, number: int) -> tuple[Data, Tensor, Tensor]:
    """The same rows elsewhere and in other units, and the place and unit of y."""
    columns = tasks.x.shape[-1]
    units = 10.0 ** (4.0 * rand((columns + 1,), like=tasks.y, generator=family.generator(number)) - 2.0)
    unit_x, unit_y = units[:-1], units[-1]
    place = (
        family.farthest_x
        * tasks.x.std((0, 1))
        * (2.0 * rand((columns,), like=tasks.y, generator=family.generator(number + 1)) - 1.0)
    )
    sd = tasks.y.std((0, 1))
    place_y = (
        family.farthest_y
        * sd
        * (2.0 * rand(sd.shape or (1,), like=tasks.y, generator=family.generator(number + 2)).reshape(sd.shape) - 1.0)
    )
    unit_y = unit_y if family.farthest_y else torch.ones_like(unit_y)
    return Data(unit_x * (tasks.x + place), unit_y * (tasks.y + place_y), tasks.mask), place_y, unit_y


@law(Hierarchical)
@given(number=st.integers(0, 10**6))
@settings(max_examples=4)
def it_does_not_matter_where_rows_lie_or_in_which_units(family: Family, number: int) -> None:
    """But for the Jacobian: where x spans a constant, as far as 1e4 standard deviations of x and 1e8 of y."""
    if not family.farthest_x and not family.farthest_y:
        return
    tasks = _drawn_tasks(family, number, ones=bool(family.farthest_x))
    moved, place, unit = _moved(family, tasks, number + 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimitWarning)
        here, there = (type(family.prior).initial(t).fit(t) for t in (tasks, moved))
    jacobian = tasks.count * unit.log() * max(place.numel(), 1)
    close(there.log_evidence(moved) + jacobian, here.log_evidence(tasks), 1e-6)
    for prior, other in ((here, there), (here.condition(tasks[0]), there.condition(moved[0]))):
        left, right = prior.predict(tasks.x[0]), other.predict(moved.x[0])
        sd = left.variance.sqrt()
        close((right.mean / unit - place - left.mean) / sd, torch.zeros_like(sd), 1e-6)
        close(right.variance / unit.square() / left.variance, torch.ones_like(sd), 1e-6)
