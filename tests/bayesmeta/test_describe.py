"""What objects say of themselves: at most ten lines of at most 120 characters, and what they learned from."""

from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
import bayesmeta as bm
import bo
from bandits.decisions.policy import Policy
from bayesmeta import Data, Statistics
from bayesmeta.describe import Described, listed, plural
from bayesmeta.protocol import Posterior
from tests.bo import past
from tests.families import F64, FAMILIES, Family, every_family, seed
from tests.seeds import shifted

TASKS = FAMILIES["beta_bernoulli"].tasks([5, 6, 3])
LINEAR = FAMILIES["linear_gaussian"].prior
BETA = FAMILIES["beta_bernoulli"].prior


def short(value: Any) -> str:
    text = repr(value)
    lines = text.split("\n")
    assert len(lines) <= 10, text
    assert max(map(len, lines)) <= 120, text
    assert "object at 0x" not in text
    assert type(value).__name__ in lines[0]
    return text


class _Table(HTMLParser):
    """Tags that are open, all of which must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@every_family
def test_families_posteriors_and_draws(family: Family) -> None:
    posterior = family.prior.condition(family.tasks([3, 0, 4]))
    assert "batch_shape (3,)" in short(posterior)
    assert "float32" in short(family.prior.to(torch.float32))
    assert "on meta" in short(family.prior.to("meta"))
    for value in (family.prior, posterior):
        assert not _Table(value._repr_html_()).open
        if isinstance(value, Posterior):
            short(value.sample(3, generator=seed(0)))


def test_what_was_learned_from() -> None:
    assert "learned from 3 tasks, 14 rows" in short(BETA.fit(TASKS))
    assert "given 7 rows" in short(FAMILIES["gaussian_process"].prior.condition(FAMILIES["gaussian_process"].rows(7)))


def test_small_numbers_are_shown_and_large_ones_by_their_range() -> None:
    assert "loc        [0.5, -1, 2]" in short(LINEAR)
    large = bm.LinearGaussian(torch.zeros(50), torch.eye(50), torch.tensor(0.25))
    assert "(50, 50), from 0 to 1" in short(large)


def test_data() -> None:
    assert short(TASKS).startswith("Data: 3 tasks of 3 to 6 rows, 14 in all, x of 0 columns, y of numbers")
    assert "y of vectors of 2" in short(Data.of(None, torch.ones(3, 2), event_dim=1))
    assert "one task of 3 rows" in short(Data.of(torch.ones(3, 1), torch.ones(3)))
    assert "2 features of tasks" in short(Data(TASKS.x, TASKS.y, TASKS.mask, torch.ones(3, 2)))
    short(Data.of(torch.ones(2, 0, 1), torch.ones(2, 0)))
    short(Data.of(torch.ones(3, 50), torch.ones(3)))
    short(TASKS.to("meta"))
    assert "3 tasks, 0 inputs and 1 output" in short(Statistics.of(TASKS))
    short(Statistics.of(TASKS, order=1))


def test_what_is_learned_with_its_spread() -> None:
    posterior = bm.Hyperposterior.fit(BETA, TASKS, num_draws=50, generator=seed(0))
    posterior.update("now", TASKS[0])
    text = short(posterior)
    assert "of BetaBernoulli: 50 draws" in text
    assert "learned from 3 tasks, 14 rows; 1 running" in text
    assert "logit_mean" in text
    shared = bm.LinearHyperposterior(LINEAR, torch.eye(3, dtype=torch.float64))
    assert "of 3 weights, 0 tasks so far" in short(shared)
    kinds = bm.fit_kinds(BETA, TASKS, max_kinds=2, generator=seed(0))
    assert "learned from  3 tasks, 14 rows" in short(kinds)
    featured = Data(TASKS.x, TASKS.y, TASKS.mask, torch.arange(3.0)[:, None])
    assert "learned from 3 tasks" in short(bm.fit_with_features(BETA, featured))
    assert "logit_mean, log_total" in short(BETA.hyperparameters(TASKS))


POLICIES = [
    getattr(bandits, name)
    for name in bandits.__all__
    if isinstance(getattr(bandits, name), type) and issubclass(getattr(bandits, name), Policy)
]


@pytest.mark.parametrize("kind", [kind for kind in POLICIES if kind is not Policy], ids=lambda kind: kind.__name__)
def test_policies(kind: Any) -> None:
    arms: Any = {f"arm {i}": torch.eye(3)[i % 3] + i for i in range(30)}
    if kind is bandits.DiagLinUCB:
        policy = kind(list(arms), 2, seed=shifted(0))
    elif kind in (bandits.UCB1, bandits.UniformlyRandom):
        policy = kind(list(arms), seed=shifted(0))
    else:
        prior = bm.LinearHyperposterior(LINEAR, torch.eye(3, dtype=torch.float64)) if _is_hierarchical(kind) else LINEAR
        policy = kind(prior, arms, tasks=2, seed=shifted(0))
    assert "over 30 arms: arm 0, arm 1" in short(policy)
    assert not _Table(policy._repr_html_()).open


def _is_hierarchical(kind: type) -> bool:
    return kind in (bandits.HierTS, bandits.AdaTS, bandits.MetaTS)


def test_choices_logs_and_arms() -> None:
    policy = bandits.ThompsonSampling(LINEAR, {"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]}, tasks=20, seed=shifted(0))
    choices = policy.choose()
    writer = bandits.LogWriter(policy.arms)
    writer.record(choices)
    writer.reward(choices, torch.ones(20))
    assert "20 decisions of 20 tasks among 2 arms: a, b" in short(writer.log())
    policy.update(choices, torch.ones(20))
    assert "20 so far" in short(policy)
    environment = bandits.FromPrior(BETA, range(10), 3, seed=shifted(0))
    for value in (
        choices,
        writer,
        environment,
        environment.scene(0),
        bandits.Wheel(2, 0.5, seed=shifted(0)),
        policy._learner.roster.arms,
    ):
        short(value)
    short(
        bandits.simulate(bandits.UniformlyRandom(range(10), tasks=3, seed=shifted(0)), environment, 5, progress=False)
    )


def test_priors_for_tuning() -> None:
    prior = past.learned()
    text = short(prior)
    assert text.startswith("TuningPrior to minimize: learned from 6 tasks, 180 rows")
    assert "SearchSpace of 4 parameters: rate, drop, depth, kind" in text
    assert "0.0001 to 1, log scale" in short(prior.space)
    assert "TuningPrior to minimize" in short(bo.MetaSampler(prior, seed=shifted(1)))
    assert "GaussianProcess" in repr(bo.Surrogate(FAMILIES["gaussian_process"].prior))
    assert not _Table(prior._repr_html_()).open


def test_names_are_escaped() -> None:
    policy = bandits.UCB1(["<b>", "a & b"], seed=shifted(0))
    assert "&lt;b&gt;, a &amp; b" in policy._repr_html_()


def test_an_object_that_is_not_made_yet() -> None:
    assert repr(object.__new__(bandits.ThompsonSampling)) == "ThompsonSampling, incomplete"


def test_more_parts_than_lines() -> None:
    class Many(Described):
        def _parts(self) -> dict[str, Tensor]:
            return {f"part{i}": F64 + i for i in range(30)}

    lines = repr(Many()).split("\n")
    assert len(lines) == 10
    assert lines[-1].split() == [
        "and",
        "part8,",
        "part9,",
        "part10,",
        "part11,",
        "part12,",
        "part13",
        "and",
        "16",
        "more",
    ]


def test_lists_and_plurals() -> None:
    assert listed("abcdefgh") == "a, b, c, d, e, f and 2 more"
    assert (plural(1, "row"), plural(0, "row")) == ("1 row", "0 rows")
