r"""Splits that a network proposes: for all points at once, from a summary of the points and of the two anchors.

The summary is a mean over points, so their order and their number do not matter. It is told of the points in units of
their own spread, and how wide a component is expected to be in these units. What comes out are mixture components, each
two normals in every dimension, between which a point is dealt by its odds. Learning is from two parts of random sizes:
given that the anchors are apart, all ways to share out the others by number are as probable.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import gelu, softplus

from bayesmeta.motifs.blocks import BernoulliBlocks
from bayesmeta.motifs.learning import MotifSchedule
from bayesmeta.motifs.partitions.kernels import Sides
from bayesmeta.motifs.partitions.model import Partitions, points_of
from bayesmeta.networks.learning.ascent import Ascent, Steps
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.numerics.gradients import gradients
from bayesmeta.random import rand

__all__ = ["LearnedDeal", "SplitProposal", "drawn_split", "learn_splits"]

NOWHERE = -1e4  # logit of a pad
MOST_POINTS = 60.0  # of two parts that are learned from


@dataclass(frozen=True, eq=False)
class SplitProposal(Weights):
    """A network that deals the points of two parts to two sides.

    Args:
        dim: of points.
        num_components: of the mixture.
        width: of the summary, and of hidden layers.
    """

    dim: int = 2
    num_components: int = 4
    width: int = 32

    def build(self) -> "SplitModule":
        return SplitModule(self)


class SplitModule(nn.Module):
    """See `SplitProposal`."""

    def __init__(self, sizes: SplitProposal) -> None:
        super().__init__()
        d, self.num_components = sizes.dim, sizes.num_components
        self.dim = d
        self.points = nn.Sequential(nn.Linear(3 * d, sizes.width), nn.GELU(), nn.Linear(sizes.width, sizes.width))
        num = self.num_components * (2 + 4 * d)
        self.perceptron = ResidualPerceptron(sizes.width + 4 * d + 2, num, width=2 * sizes.width, num_layers=2)

    def forward(self, anchors: Tensor, points: Tensor, is_there: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Log weights of components `(n, c)`, and logits of the second side `(n, c, m)`.

        Args:
            anchors, points: in units of their spread, `(n, 2, d)` and `(n, m, d)`.
            told: of the spread and the model `(n, 2 d + 2)`.
        """
        ends = anchors.flatten(1)
        each = torch.cat([points, ends[:, None].expand(-1, points.shape[1], -1)], -1)
        shares = is_there.to(points)
        shares = shares / shares.sum(-1, keepdim=True).clamp(min=1.0)
        summary = (shares[:, None] @ self.points(each))[:, 0]
        said = self.perceptron(torch.cat([gelu(summary), ends, told], -1)).unflatten(-1, (self.num_components, -1))
        loc, scale = said[..., 2:].unflatten(-1, (2, 2, self.dim)).unbind(2)  # (n, c, side, d)
        loc, precision = loc + anchors[:, None], 0.02 + softplus(scale + 1.0)
        # log density of two normals, as products of points and their squares
        square, linear = -0.5 * precision, precision * loc
        constant = (precision.log() - precision * loc.square()).sum(-1) * 0.5
        both = torch.cat([square[:, :, 1] - square[:, :, 0], linear[:, :, 1] - linear[:, :, 0]], -1)
        logits = both @ torch.cat([points.square(), points], -1).mT
        logits = logits + (constant[..., 1] - constant[..., 0] + said[..., 1])[..., None]
        return said[..., 0].log_softmax(-1), logits.masked_fill(~is_there[:, None], NOWHERE)


@dataclass(frozen=True, eq=False)
class LearnedDeal:
    """What a network proposes."""

    proposal: SplitProposal

    def deal(self, model: Partitions, parts: Sides, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        chains, tasks, m = parts.sides.shape
        said = self.proposal.module(*network_inputs(model, parts, self.proposal.dtype))
        logits = said[1].to(parts.points)  # densities are as exact as those of the model
        q = BernoulliBlocks(said[0].to(logits).log_softmax(-1), logits)
        drawn = q.sample(1, generator=generator)[0] > 0.5
        sides = torch.where(parts.is_merged[..., None], drawn.reshape(chains, tasks, m), parts.sides)
        return sides, q.log_prob(sides.reshape(1, -1, m))[0].reshape(chains, tasks).to(parts.points)


def network_inputs(model: Partitions, parts: Sides, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network is told, with chains and tasks as one axis."""
    there = parts.is_there[..., None].to(parts.points)
    num = there.sum(-2) + 2.0
    mean = ((parts.points * there).sum(-2) + parts.anchors.sum(-2)) / num
    points, anchors = parts.points - mean[..., None, :], parts.anchors - mean[..., None, :]
    var = ((points.square() * there).sum(-2) + anchors.square().sum(-2)) / num
    scale = (var + 1e-3 * (model.rate / model.shape)[:, None]).sqrt()
    expected = (model.rate / model.shape).sqrt()[:, None] / scale
    beside = [num[..., 0].log() / 4.0, model.shape.log().expand(num.shape[:-1])]
    told = torch.cat([expected, expected.log(), torch.stack(beside, -1)], -1)
    points, anchors = points / scale[..., None, :], anchors / scale[..., None, :]
    points = points.where(parts.is_there[..., None], 0.0)
    inputs = (anchors.to(dtype), points.to(dtype), parts.is_there, told.to(dtype))
    return tuple(each.flatten(0, 1) for each in inputs)  # type: ignore[return-value]


def drawn_split(num: int, dim: int, generator: Generator) -> tuple[Partitions, Sides]:
    """Pairs of parts under random parameters, one chain of each, as they are under the model."""
    like = torch.empty(0, dtype=torch.float64)

    def between(low: float, high: float) -> Tensor:
        return low * (high / low) ** rand((num,), like=like, generator=generator)

    pseudo_count, shape = between(0.01, 0.5), between(1.5, 10.0)
    size = between(1.0, MOST_POINTS).round()
    share = rand((num,), like=like, generator=generator)
    most = int(size.max())
    second = torch.arange(1.0, most + 1.0).to(like)[None] <= (share * (size + 1.0)).floor()[:, None]
    is_there = torch.arange(most) < size[:, None]
    labels = torch.cat([torch.tensor([0, 1]).expand(num, 2), second.long()], -1)
    points = points_of(labels, pseudo_count, shape, shape, dim, generator=generator)
    model = Partitions(points, torch.ones_like(shape), pseudo_count, shape, shape)
    merged = torch.zeros(1, num, dtype=torch.bool)
    return model, Sides(points[None, :, :2], points[None, :, 2:], is_there[None], (second & is_there)[None], merged)


def learn_splits(
    proposal: SplitProposal, schedule: MotifSchedule | None = None, *, generator: Generator | None = None
) -> SplitProposal:
    """The proposal after learning from random pairs of parts."""
    schedule = schedule or MotifSchedule()
    drawing = generator or Generator().manual_seed(0)

    def objective(weights: dict[str, Tensor]) -> Tensor:
        model, parts = drawn_split(schedule.num_blocks, proposal.dim, drawing)
        q = BernoulliBlocks(*proposal.at(weights, *network_inputs(model, parts, proposal.dtype)))
        return q.log_prob(parts.sides)[0].mean()

    steps = Steps(schedule.num_steps, schedule.rate, warm_up=0.03, longest=10.0, average=0.995, in_eigenbases=True)
    with gradients():
        return proposal.with_weights(
            Ascent(proposal.weights, objective, steps, generator=drawing).run(
                lambda _: False, interval=max(1, schedule.num_steps // 40)
            )
        )
