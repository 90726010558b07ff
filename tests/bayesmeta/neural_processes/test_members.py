"""Each member: what it promises beyond the laws, and what it learns, beside exact answers."""

import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator
from torch.distributions import Normal

import bayesmeta as bm
from bayesmeta import (
    AttentiveNeuralProcess,
    CausalTransformerNeuralProcess,
    ConditionalNeuralProcess,
    Data,
    TransformerNeuralProcess,
    one_hot,
)
from bayesmeta.fields import LearnedFrom
from bayesmeta.neural_processes.base import FarFromPastWarning
from bayesmeta.neural_processes.episodes import Moments
from bayesmeta.neural_processes.function_draws import MOST_POINTS
from bayesmeta.neural_processes.heads import BernoulliHead, CategoricalHead, CountHead, HistogramHead, MixtureHead
from bayesmeta.neural_processes.learning import Schedule
from bayesmeta.neural_processes.transformer.network import TransformerModule
from bayesmeta.neural_processes.transformer.plain import LaterChain
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, seed

MEMBERS: dict[str, Callable[..., Any]] = {
    "conditional": lambda tasks, **options: ConditionalNeuralProcess.initial(tasks, width=24, num_layers=1, **options),
    "transformer": lambda tasks, **options: TransformerNeuralProcess.initial(
        tasks, width=12, num_layers=2, num_heads=2, linear_width=6, hidden=12, **options
    ),
    "attentive": lambda tasks, **options: AttentiveNeuralProcess.initial(
        tasks, width=16, num_layers=1, num_latent=8, num_attending=1, num_heads=2, **options
    ),
}
every = pytest.mark.parametrize("member", MEMBERS)
with_chains = pytest.mark.parametrize("member", sorted(set(MEMBERS) - {"attentive"}))  # whose draws are no vectors
NOISE = 0.3


class Levels:
    """Tasks without a slope: y is a level of the task, N(0, 1), and noise. Its posterior is in closed form."""

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        x = rand((num_tasks, num_rows, 1), like=F64, generator=generator)
        level, noise = (randn((num_tasks, n), like=F64, generator=generator) for n in (1, num_rows))
        return Data.of(x, level + NOISE * noise)

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        tasks = self.draw(num_tasks, num_known + num_asked, generator=generator)
        total = torch.nn.functional.pad(tasks.y[:, :num_known].cumsum(1), (1, 0))
        precision = 1.0 + torch.arange(num_known + 1) / NOISE**2
        mean, var = total / NOISE**2 / precision, 1.0 / precision + NOISE**2
        shape = (num_tasks, num_asked, num_known + 1)
        return tasks, Moments(mean[:, None].expand(shape), var.expand(shape))


class WithoutMoments:
    draw = Levels.draw


@cache
def learned(member: str, stream: Any) -> Any:
    tasks = stream.draw(50, 20, generator=seed(1))
    schedule = Schedule(400, num_tasks=16, most_known=12, num_asked=8, rate=5e-3, average=0.98)
    return MEMBERS[member](tasks).fit(stream, schedule=schedule, generator=seed(2), progress=False)


def gap(prior: Any, num_known: int) -> float:
    """Nats per row between exact Bayes and the member, on the same tasks."""
    tasks, moments = Levels().draw_with_moments(400, num_known, 4, generator=seed(3))
    y, x = tasks.y[:, num_known:], tasks.x[:, num_known:]
    exact = Normal(moments.mean[..., -1], moments.var[..., -1].sqrt()).log_prob(y)
    found = prior.condition(tasks.rows(slice(0, num_known))).predict(x).log_prob(y)
    return float((exact - found).mean())


LEVELS = Levels()
DRAWS = WithoutMoments()


# those with a vector learn from draws alone, with moments or without
@pytest.mark.parametrize(
    ("member", "stream"),
    [(member, DRAWS) for member in MEMBERS] + [("conditional", LEVELS), ("transformer", LEVELS)],
    ids=[f"draws-{member}" for member in MEMBERS] + ["moments-conditional", "moments-transformer"],
)
def test_levels_are_learned_nearly_as_exact_bayes_knows_them(member: str, stream: Any) -> None:
    prior = learned(member, stream)
    for num_known in (0, 3, 12):
        assert gap(prior, num_known) < 0.15
    if prior.knows_functions:
        return
    # the noise is what two values at one place have not in common
    assert float(prior.head.noise_var) == pytest.approx(NOISE**2, rel=0.5)


@every
def test_learning_goes_on_from_a_checkpoint_to_the_last_bit(member: str, tmp_path: Path) -> None:
    tasks = Levels().draw(50, 20, generator=seed(1))
    schedule = Schedule(40, num_tasks=4, most_known=6, num_asked=4)
    path = tmp_path / "learning.safetensors"

    class Killed(Levels):
        num = 0

        def draw_with_moments(self, *args: Any, **options: Any) -> Any:
            self.num += 1
            if self.num == 25:
                raise KeyboardInterrupt
            return super().draw_with_moments(*args, **options)

    options = {"schedule": schedule, "progress": False}
    whole = MEMBERS[member](tasks).fit(Levels(), generator=seed(5), **options)
    with pytest.raises(KeyboardInterrupt):
        MEMBERS[member](tasks).fit(Killed(), generator=seed(5), checkpoint=path, **options)
    again = MEMBERS[member](tasks).fit(Levels(), generator=seed(99), checkpoint=path, **options)
    assert again.equals(whole, rtol=0.0, atol=0.0)


# the attentive one takes twice the steps, as z begins as noise; what it learns from a stream is asked above
@with_chains
def test_past_tasks_teach_what_they_have_in_common(member: str) -> None:
    past = Levels().draw(60, 12, generator=seed(6))
    start = MEMBERS[member](past)
    schedule = Schedule(300, num_tasks=16, most_known=12, num_asked=8, rate=5e-3, average=0.98)
    prior = start.fit(past, schedule=schedule, generator=seed(7), progress=False)
    assert prior.learned_from == bm.fields.LearnedFrom(60, 720)
    assert gap(prior, 6) < 0.5 * gap(start, 6)


def levels(generator: Generator) -> torch.Tensor:
    """A level for each task, and noise."""
    level, noise = (randn((30, n), like=F64, generator=generator) for n in (1, 8))
    return 2.0 * level + 0.5 * noise


# tasks differ in their level, so that the rows of a task say much of each other
HEADS = {
    "mixture": (MixtureHead, levels),
    "histogram": (HistogramHead, levels),
    "bernoulli": (BernoulliHead, lambda g: (levels(g) > 0.0).double()),
    "categorical": (CategoricalHead, lambda g: one_hot((levels(g) / 2.0 + 1.5).floor().clamp(0.0, 2.0).long(), 3)),
    "counts": (CountHead, lambda g: (levels(g) + 4.0).clamp(min=0.0).floor()),
}


@every
def test_a_temperature_undoes_predictions_that_are_too_narrow(member: str) -> None:
    prior, held_out = learned(member, DRAWS), Levels().draw(150, 11, generator=seed(21))
    narrow = replace(prior, head=replace(prior.head, temperature=0.3))
    right, again = prior.calibrated(held_out), narrow.calibrated(held_out)
    assert again.head.temperature == pytest.approx(right.head.temperature, rel=0.01)  # the same, wherever it began
    new = Levels().draw(400, 21, generator=seed(22))

    def coverage(one: Any) -> float:
        """Of intervals of 90%, one row of each task."""
        prediction = one.condition(new.rows(slice(0, 10))).predict(new.x[:, 10:11])
        low, high = (prediction.icdf(torch.full_like(prediction.mean, p)) for p in (0.05, 0.95))
        return float(((new.y[:, 10:11] > low) & (new.y[:, 10:11] < high)).double().mean())

    assert coverage(narrow) < 0.7  # that of a mixture over z does not vanish with the temperature
    assert coverage(again) == pytest.approx(0.9, abs=5 * (0.09 / 400) ** 0.5)
    with pytest.raises(ValueError, match="none of these has any"):
        prior.calibrated(held_out.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="a posterior"):
        prior.condition(held_out).calibrated(held_out)


# others give heads what they ask for in the same way; the transformer has one of several parts and one of several y
@pytest.mark.parametrize(
    ("name", "member"),
    [*((name, "conditional") for name in HEADS), ("mixture", "transformer"), ("categorical", "transformer")],
)
def test_any_head_learns(name: str, member: str, tmp_path: Path) -> None:
    head, draw = HEADS[name]
    y = draw(seed(1))
    tasks = Data.of(rand((30, 8, 2), like=F64, generator=seed(2)), y, event_dim=y.ndim - 2)
    start = MEMBERS[member](tasks, head=head)
    # these begin as the distribution of all rows, and gain late
    num_steps = 400 if name in ("histogram", "categorical") else 100
    schedule = Schedule(num_steps, num_tasks=8, most_known=6, num_asked=4, rate=5e-3, average=0.9)
    prior = start.fit(tasks, schedule=schedule, generator=seed(3), progress=False)
    assert prior.log_evidence(tasks).sum() > start.log_evidence(tasks).sum()
    bm.save(prior, tmp_path / "prior.safetensors")
    assert bm.load(tmp_path / "prior.safetensors").equals(prior, rtol=0.0)
    assert pickle.loads(pickle.dumps(prior)).equals(prior, rtol=0.0)


@every
def test_categories_and_rows_without_inputs(member: str) -> None:
    x = torch.stack([torch.arange(6) % 3, torch.arange(6)], -1).double()
    tasks = Data.of(x.expand(5, 6, 2), randn((5, 6), like=F64, generator=seed(1)))
    prior = MEMBERS[member](tasks, categories={0: 3})
    unseen = torch.tensor([[7.0, 2.0]], dtype=torch.float64)
    assert prior.condition(tasks).predict(unseen).mean.isfinite().all()
    no_inputs = Data.of(None, randn((5, 6), like=F64, generator=seed(1)))
    assert MEMBERS[member](no_inputs).condition(no_inputs).predict(no_inputs.x).mean.shape == (5, 6)


def chain_family(member: str) -> Any:
    return FAMILIES[f"{member}_neural_process"]


@with_chains
def test_a_draw_begins_as_the_marginal_and_remembers(member: str) -> None:
    family = chain_family(member)
    posterior, x = family.prior.condition(family.rows(5)), family.draw_x(4, seed(1))
    draws = posterior.sample(2000, generator=seed(2))
    first, marginal = draws(x[:1])[:, 0], posterior.marginal(x[:1])
    assert abs(float(first.mean() - marginal.mean)) < 5.0 * float(marginal.stddev) / 2000**0.5
    rest = draws(x[[2, 0, 3, 2]])
    assert torch.equal(rest[:, 1], first)
    assert torch.equal(rest[:, 0], rest[:, 3])
    assert draws.predict(x[:1]).mean.shape == (2000, 1)
    assert float(draws.predict(x[:1]).variance[0]) == pytest.approx(float(family.prior.head.noise_var))


@with_chains
def test_points_beyond_the_most_have_the_mean_of_what_was_drawn(member: str) -> None:
    family = chain_family(member)
    draws = family.prior.sample(2, generator=seed(3))
    x = family.draw_x(MOST_POINTS + 3, seed(4))
    found = draws(x)
    assert found.isfinite().all()
    assert torch.equal(found[:, -1], draws(x[-1:])[:, 0]), "nothing is drawn any more"


def test_a_process_that_answers_as_a_gaussian_one_has_its_covariances() -> None:
    """Responses of the mean to one row more, of a Gaussian process in place of a network."""
    from bayesmeta.neural_processes.second_moments import covariance, with_diagonal

    process = FAMILIES["gaussian_process"]
    posterior, x = process.prior.condition(process.rows(4)), process.draw_x(5, seed(5))
    prediction, exact = posterior.predict(x), posterior.joint(x).covariance_matrix
    moved = []
    for i in range(5):
        higher = (
            posterior.condition(Data.of(x[i : i + 1], (prediction.mean + sign * prediction.stddev)[i : i + 1]))
            .predict(x)
            .mean
            for sign in (1.0, -1.0)
        )
        up, down = higher
        moved.append(0.5 * (up - down))
    found = with_diagonal(covariance(torch.stack(moved), prediction.stddev), exact.diagonal())
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


@every
def test_joint_covariances_are_positive_definite_and_have_slopes(member: str) -> None:
    family = chain_family(member)
    x = family.draw_x(6, seed(6)).requires_grad_()
    joint = family.prior.condition(family.tasks([4, 2, 0])).joint(x)
    assert joint.covariance_matrix.shape == (3, 6, 6)
    assert torch.linalg.eigvalsh(joint.covariance_matrix).min() > 0.0
    (slope,) = torch.autograd.grad(joint.covariance_matrix.sum() + joint.mean.sum(), x)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0.0


def test_a_chain_has_the_density_of_its_steps() -> None:
    """In one pass as one row after another; with other rows that pads hold, and after more rows than are ever later."""
    family = FAMILIES["transformer_neural_process"]
    rows, posterior = family.tasks([20, 7], 9), family.prior.condition(family.tasks([4, 2]))
    chain, total = LaterChain(posterior.expand((1, 2))), torch.zeros(2, dtype=torch.float64)
    for i in range(20):
        x, y = rows.x[None, :, i : i + 1], rows.y[None, :, i : i + 1]
        total += torch.where(rows.mask[:, i], chain.predict(x).log_prob(y)[0, :, 0], 0.0)
        chain.add(x[:, :, 0], y[:, :, 0])
    found = posterior.chain_log_prob(rows)
    torch.testing.assert_close(found[0], total[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], posterior[1].chain_log_prob(rows[1].rows(slice(0, 7))), rtol=1e-9, atol=1e-9)
    one = rows.rows(slice(0, 1))  # nothing is later yet
    torch.testing.assert_close(posterior.chain_log_prob(one), posterior.log_evidence(one), rtol=1e-9, atol=1e-9)


def test_a_causal_transformer_looks_at_a_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows one after another, in parts or at once, padded or not, are the same to it; and each is encoded once."""
    family = FAMILIES["causal_transformer_neural_process"]
    rows, x = family.tasks([9, 4]), torch.stack([family.draw_x(3, seed(n)) for n in (1, 2)])
    at_once = family.prior.condition(rows)
    step_by_step, encoded, extend = family.prior.condition(rows.rows(slice(0, 2))), [], TransformerModule.extend
    step_by_step.predict(x)

    def counted(module: Any, before: Any, x: Any, *rest: Any) -> Any:
        encoded.append(x.shape[1])
        return extend(module, before, x, *rest)

    monkeypatch.setattr(TransformerModule, "extend", counted)
    for start, end in ((2, 3), (3, 7), (7, 9)):
        step_by_step = step_by_step.condition(rows.rows(slice(start, end)))
        step_by_step.predict(x)
    assert encoded == [1, 4, 2]
    for left, right in zip(
        (step_by_step.predict(x).mean, at_once.predict(x).mean), (at_once, step_by_step), strict=True
    ):
        torch.testing.assert_close(left, right.predict(x).mean, rtol=1e-9, atol=1e-9)
    # the density of all rows in one pass is that of one after another
    total = sum(
        (family.prior.condition(rows.rows(slice(0, i))).predict(rows.x[:, i : i + 1]).log_prob(rows.y[:, i : i + 1]))[
            :, 0
        ]
        * rows.mask[:, i]
        for i in range(9)
    )
    torch.testing.assert_close(family.prior.log_evidence(rows), total, rtol=1e-9, atol=1e-9)


def test_a_causal_transformer_learns_as_the_others() -> None:
    sizes = {"width": 12, "num_layers": 2, "num_heads": 2, "linear_width": 6, "hidden": 12}
    start = CausalTransformerNeuralProcess.initial(Levels().draw(50, 20, generator=seed(1)), **sizes)
    schedule = Schedule(400, num_tasks=16, most_known=12, num_asked=8, rate=5e-3, average=0.98)
    prior = start.fit(Levels(), schedule=schedule, generator=seed(2), progress=False)
    for num_known in (0, 3, 12):
        assert gap(prior, num_known) < 0.15


def test_a_causal_transformer_minds_the_order_of_rows() -> None:
    family = FAMILIES["causal_transformer_neural_process"]
    rows, x = family.rows(6), family.draw_x(2, seed(1))
    there, back = (family.prior.condition(each).predict(x).mean for each in (rows, rows.rows(torch.arange(6).flip(0))))
    assert not torch.allclose(there, back, rtol=1e-6)


def test_stationary_attention_does_not_see_where_rows_lie() -> None:
    tasks = Levels().draw(5, 8, generator=seed(1))
    prior = MEMBERS["transformer"](tasks)
    generator = seed(4)
    weights = {
        name: value + 0.3 * randn(value.shape, like=value, generator=generator)
        for name, value in prior.network.weights.items()
    }
    prior = replace(prior, network=prior.network.with_weights(weights))
    here = prior.condition(tasks).predict(tasks.x)
    far = prior.condition(replace(tasks, x=tasks.x + 1000.0)).predict(tasks.x + 1000.0)
    torch.testing.assert_close(far.mean, here.mean, rtol=1e-6, atol=1e-6)
    sees = MEMBERS["transformer"](tasks, knows_stationarity=False)
    assert sees.network.num_inputs == prior.network.num_inputs
    assert not sees.network.knows_stationarity


def test_more_rows_than_are_looked_at_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesmeta.neural_processes.transformer import network as transformer_network

    family = chain_family("transformer")
    rows, x = family.tasks([9, 4]), family.draw_x(7, seed(7))
    whole = family.prior.condition(rows).predict(x)
    monkeypatch.setattr(transformer_network, "MOST", 500)
    parts = family.prior.condition(rows).predict(x)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.variance, whole.variance, rtol=1e-12, atol=1e-12)


@every
def test_a_row_costs_the_same_after_many(member: str) -> None:
    if member != "conditional":
        return  # the others look at all rows again
    family = chain_family(member)
    state = family.prior.online((4,))
    x, y = family.draw_x(1, seed(1)), torch.zeros(1, dtype=torch.float64)
    index = (torch.tensor([2]),)

    def seconds() -> float:
        taken = []
        for _ in range(30):
            start = time.perf_counter()
            state.add(index, x, y)
            taken.append(time.perf_counter() - start)
        return sorted(taken)[len(taken) // 4]

    seconds()
    few = seconds()
    for _ in range(500):
        state.add(index, x, y)
    assert seconds() < 3.0 * few
    assert int(state.posterior(2).count) == 3 * 30 + 500


@every
def test_a_task_far_from_all_that_was_learned_from_is_warned_of(member: str) -> None:
    prior = replace(MEMBERS[member](Levels().draw(50, 20, generator=seed(1))), learned_from=LearnedFrom(50, 1000))
    near = Levels().draw(2, 6, generator=seed(2))
    prior.condition(near)
    prior.condition(Data(near.x, near.y, near.mask.logical_and(torch.tensor([True] * 5 + [False]))))
    for far, name in ((replace(near, y=near.y + 300.0), "y"), (replace(near, x=near.x - 50.0), "x")):
        with pytest.warns(FarFromPastWarning, match=rf"^{name} of a row is \d+ standard deviations"):
            prior.condition(far)


@every
def test_what_cannot_be_learned_from_is_refused(member: str) -> None:
    tasks = Levels().draw(5, 6, generator=seed(1))
    prior = MEMBERS[member](tasks)
    with pytest.raises(TypeError, match=r"NeuralProcess\.fit needs Data"):
        prior.fit([1.0, 2.0])
    with pytest.raises(ValueError, match="got a posterior"):
        prior.condition(tasks[0]).fit(tasks)
    with pytest.raises(ValueError, match="x must have 1 columns; got 2"):
        prior.condition(Data.of(torch.zeros(3, 2).double(), torch.zeros(3).double()))
    with pytest.raises(ValueError, match="weights of another network"):
        replace(prior, network=replace(prior.network, num_outputs=5))
