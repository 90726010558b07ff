"""Any family as a prior for tuning: what it is told, and what suggestions make of it."""

import pytest
import torch
from torch import Tensor

from bayesmeta import Data, GaussianProcess
from bayesmeta.fields import LearnedFrom
from bo import SearchSpace, fit_family, normal_scores
from bo.acquisition.one_posterior import OnePosterior
from bo.priors.families import varying_tasks
from tests.bo import past
from tests.families import seed

SPACE = SearchSpace(past.SPACE)
X = SPACE.sobol(24, generator=seed(0))


def tasks() -> Data:
    """Two tasks of the same landscape, and one that says nothing."""
    losses = torch.tensor([past.loss(params) for params in SPACE.from_unit(X)], dtype=torch.float64)
    return Data.pad([(X[:20], losses[:20]), (X[8:], 1e3 * losses[8:]), (X, 0.0 * losses)])


def learn(scores: Data) -> GaussianProcess:
    return GaussianProcess.initial(scores).fit(scores)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_family_is_told_normal_scores_of_what_varies(direction: str) -> None:
    told: list[Data] = []

    def spy(scores: Data) -> GaussianProcess:
        told.append(scores)
        return GaussianProcess.initial(scores)

    prior = fit_family(SPACE, tasks(), direction, spy)
    (scores,) = told
    better = tasks().y[:2] if direction == "maximize" else -tasks().y[:2]
    assert torch.equal(scores.y, normal_scores(better, tasks().mask[:2]))
    assert prior.learned_from == LearnedFrom(2, 20 + 16)
    assert isinstance(prior.suggester, OnePosterior)
    best = better.masked_fill(~tasks().mask[:2], -torch.inf).argmax(-1)
    expected = tasks().x[torch.arange(2), best].unique(dim=0)
    assert torch.equal(prior.starts, expected)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_suggestions_are_its_expected_improvement(direction: str) -> None:
    prior = fit_family(SPACE, tasks(), direction, learn)
    y = torch.tensor([past.loss(params) for params in SPACE.from_unit(X[:6])], dtype=torch.float64)
    turn, value = prior.suggest(Data.of(X[:6], y if direction == "minimize" else -y), X[:0], ["mixture"] * 6)
    scores = normal_scores(-y, torch.ones(6, dtype=torch.bool))
    f = prior.functions.condition(Data.of(X[:6], scores)).marginal(X)
    # at the midpoints of equally likely intervals
    midpoints = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    gain = (f.mean + f.stddev * midpoints[:, None] - scores.max()).clamp(min=0.0)
    assert turn == "mixture"
    torch.testing.assert_close(value(X), gain.mean(0), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_learned_from() -> None:
    constant = Data.of(X.expand(2, -1, -1), torch.ones(2, len(X), dtype=torch.float64))
    with pytest.raises(ValueError, match="a task whose target varies; got none of 2"):
        fit_family(SPACE, constant, "minimize", learn)
    with pytest.raises(ValueError, match='direction must be "minimize" or "maximize"; got \'up\''):
        fit_family(SPACE, tasks(), "up", learn)


def test_pads_do_not_vary() -> None:
    y: Tensor = torch.tensor([[1.0, 1.0, 9.0], [1.0, 2.0, 9.0]])
    mask = torch.tensor([[True, True, False]] * 2)
    assert varying_tasks(Data(torch.zeros(2, 3, 1), y, mask), "maximize").y.tolist() == [[1.0, 2.0, 9.0]]
