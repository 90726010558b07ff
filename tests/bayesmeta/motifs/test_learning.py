"""Proposals of blocks: what a network says is a distribution, and what it learns is that of the motif."""

from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

import bayesmeta.motifs
from bayesmeta.motifs import BernoulliProposal, MotifSchedule, NormalProposal, learn
from bayesmeta.motifs.blocks import BernoulliBlocks, NormalBlocks
from bayesmeta.random import rand, randn
from tests.seeds import seed


@dataclass(frozen=True)
class TwoSides:
    """A number on either side of what is told, or another with it."""

    num_inputs: int = 1
    num_values: int = 2

    def draw(self, num: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        x = rand((num, 1), like=torch.empty(0), generator=generator)
        side = (rand((num, 1), like=x, generator=generator) < 0.3).to(x) * 2.0 - 1.0
        return x, side * (1.0 + x) + 0.1 * randn((num, 2), like=x, generator=generator)


def test_a_mixture_of_bernoullis_adds_up_to_one_and_draws_what_it_says() -> None:
    q = BernoulliBlocks.of(torch.randn(3, 4 * 4, generator=seed(0)).double(), 3)
    every = (torch.arange(8)[:, None] >> torch.arange(3) & 1).double()[:, None].expand(8, 3, 3)
    probs = q.log_prob(every).exp()
    torch.testing.assert_close(probs.sum(0), torch.ones(3).double())
    drawn = q.sample(20_000, generator=seed(1))
    shares = (drawn[:, None] == every).all(-1).double().mean(0)
    assert bool(((shares - probs).abs() < 5.0 * (probs / 20_000).sqrt() + 1e-4).all())


def test_a_mixture_of_normals_has_the_mean_and_density_that_it_says() -> None:
    q = NormalBlocks.of(torch.randn(2, 3 * 5, generator=seed(2)).double(), 2)
    x = q.sample(20_000, generator=seed(3))
    mean = (q.log_weights.exp()[..., None] * q.loc).sum(1)
    assert bool(((x.mean(0) - mean).abs() < 5.0 * x.std(0) / 20_000**0.5).all())
    narrow = NormalBlocks(q.log_weights, q.loc, 0.8 * q.scale)
    ratio = (narrow.log_prob(x) - q.log_prob(x)).exp()  # whose mean is one for densities
    assert bool(((ratio.mean(0) - 1.0).abs() < 5.0 * ratio.std(0) / 20_000**0.5).all())


def test_learning_finds_both_sides() -> None:
    start = NormalProposal.initial(num_inputs=1, num_values=2, num_components=4, width=16, num_layers=1)
    learned = learn(start, TwoSides(), MotifSchedule(80, 256, 0.02), generator=seed(4))
    x, y = TwoSides().draw(2000, generator=seed(5))
    before, after = (q.blocks(x).log_prob(y[None]).mean() for q in (start, learned))
    assert after > before + 1.0
    drawn = learned.blocks(torch.full((2000, 1), 0.5)).sample(1, generator=seed(6))[0]
    assert 0.1 < float((drawn[:, 0] > 0).float().mean()) < 0.5


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="rate must be finite and above zero"):
        MotifSchedule(rate=0.0)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        MotifSchedule(0)
    with pytest.raises(ValueError, match="the proposal is for 3 inputs and 2 values; the motif has 1 and 2"):
        learn(BernoulliProposal.initial(num_inputs=3, num_values=2), TwoSides())


def test_public_names_are_there() -> None:
    for name in bayesmeta.motifs.__all__:
        getattr(bayesmeta.motifs, name)
    assert {name for name in dir(bayesmeta.motifs) if not name.startswith("__")} == set(bayesmeta.motifs.__all__)
