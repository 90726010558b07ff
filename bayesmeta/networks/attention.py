"""Attention of rows to rows, with or without their distances.

Keys and values are those of rows that are known. Beside them stands a *sink*, a key of score zero whose value is zero:
rows that are all far away then say little, many say more than few, and nothing to attend to is no division by zero.

With distances, a score is the product of query and key plus a function of the signed difference of inputs: a sum of
bumps of several widths, odd bumps, |d| and d^2 / 2, with coefficients that are linear in the query's token. So
attention can be a kernel from the first step on, and what it learns at one place holds at all others.

Beside the tokens runs a *linear stream*, which begins as y. The same attention weights move it, then a matrix mixes
its channels, and no layer bends it; tokens see it after each layer. Posterior means are linear in y where the kernel is
known, and this stream is their short way out. What a layer adds to it has either sign and mixes heads, so that layers
together can take the steps of an iterative solution, whose products of kernels no head has by itself.

Source: Vaswani et al., Attention is all you need (2017); distances: Ashman et al., Translation equivariant transformer
neural processes (2024).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bayesmeta.networks.perceptron import PerceptronLayer, zeroed

__all__ = ["NUM_DISTANCES", "AttentionLayer", "Known", "attend", "distance_functions", "excluding"]

WIDTHS = (0.03, 0.08, 0.2, 0.5, 1.2)  # of bumps, in standard deviations of the inputs
NUM_DISTANCES = 2 * len(WIDTHS) + 2  # functions of each input
LARGEST_GATE = 1.5  # of what a layer adds to the linear stream


class Known(NamedTuple):
    """What one layer keeps of known rows for whatever asks later: keys `(b, k, width)`, values `(b, k, width + s)`."""

    keys: Tensor
    values: Tensor

    def and_more(self, more: "Known") -> "Known":
        """These rows and others after them."""
        return Known(torch.cat([self.keys, more.keys], 1), torch.cat([self.values, more.values], 1))


class AttentionLayer(nn.Module):
    """A stream of tokens, plus what they take from known rows, plus what a hidden layer makes of that.

    Args:
        width: of tokens.
        num_heads: each has its part of the widths.
        linear_width: of the linear stream.
        num_distances: functions of distance; zero without distances.
        hidden: width of the hidden layer.
    """

    def __init__(self, width: int, *, num_heads: int, linear_width: int, num_distances: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.num_distances = num_heads, num_distances
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, linear_width)
        self.distance = nn.Linear(width, num_heads * num_distances) if num_distances else None
        self.out = zeroed(nn.Linear(width, width))
        self.mix = nn.Linear(linear_width, linear_width, bias=False)
        self.look = zeroed(nn.Linear(linear_width, width))
        self._begin()
        self.perceptron = PerceptronLayer(width, hidden)

    def forward(
        self,
        tokens: Tensor,
        linear: Tensor,
        num_known: int,
        before: Known | None,
        distances: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Known | None]:
        """Tokens and linear stream after the layer, and what it keeps of known ones, None where all came before.

        Args:
            tokens, linear: `(b, q, width)` and `(b, q, linear_width)`.
            num_known: so many of the tokens, from the first, are those of known rows.
            before: known rows that came earlier.
            distances: functions of those of all tokens and all known rows `(b, q, num_distances, k)`.
            mask: what `excluding` makes of which known rows count for which tokens, `(b, q, k)` or `(b, 1, k)`; None
                where all do.
        """
        normed = self.norm(tokens)
        own = None
        if num_known or before is None:
            own = self._known(normed[:, :num_known], linear[:, :num_known])
        known = own if before is None else before if own is None else before.and_more(own)
        assert known is not None
        bias = None if self.distance is None or distances is None else self._bias(normed, distances)
        taken = self._attend(self.query(normed), known, bias, mask)
        width = tokens.shape[-1] // self.num_heads
        gate = LARGEST_GATE * torch.tanh(self.gate(normed))
        linear = linear + gate * self.mix(taken[..., width:].flatten(2))
        tokens = tokens + self.out(taken[..., :width].flatten(2)) + self.look(linear)
        return self.perceptron(tokens), linear, own

    def _begin(self) -> None:
        """Each channel of the linear stream starts as its own, with a gate that is nearly the same for all tokens."""
        with torch.no_grad():
            self.mix.weight.mul_(0.1).add_(torch.eye(len(self.mix.weight)))
            self.gate.weight.mul_(0.3)
            self.gate.bias.uniform_(-0.7, 0.7)

    def known(self, tokens: Tensor, linear: Tensor) -> Known:
        """What it keeps of known rows by themselves."""
        return self._known(self.norm(tokens), linear)

    def _known(self, normed: Tensor, linear: Tensor) -> Known:
        keys, values = self.key_value(normed).chunk(2, -1)
        return Known(keys, torch.cat([self._by_head(values), self._by_head(linear)], -1).flatten(2))

    def _bias(self, normed: Tensor, distances: Tensor) -> Tensor:
        assert self.distance is not None
        coefficients = self.distance(normed).unflatten(-1, (self.num_heads, self.num_distances))
        return (coefficients @ distances).transpose(1, 2)

    def _attend(self, queries: Tensor, known: Known, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        """`(b, q, heads, part of width and linear stream)`."""
        q, k, v = (self._by_head(part).transpose(1, 2) for part in (queries, *known))
        return attend(q, k, v, bias, mask).transpose(1, 2)

    def _by_head(self, part: Tensor) -> Tensor:
        return part.unflatten(-1, (self.num_heads, -1))


def excluding(counts: Tensor, like: Tensor) -> Tensor:
    """What is added to scores: zero where `counts` is true, so much less than any score elsewhere that none is left."""
    return torch.zeros_like(counts, dtype=like.dtype).masked_fill(~counts, -torch.inf)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """What queries `(..., heads, q, e)` take from known rows, and from the sink beside them.

    Args:
        queries, keys, values: of each head `(..., heads, q, e)`, `(..., heads, k, e)` and `(..., heads, k, v)`.
        bias: of scores `(..., heads, q, k)`.
        mask: what `excluding` makes of which known rows count for which queries, `(..., q, k)` or `(..., 1, k)`; None
            where all do.
    """
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + mask[..., None, :, :]
    weights = pad(scores, (0, 1)).softmax(-1)[..., :-1]  # the sink has score zero, and its value adds nothing
    return weights @ values


def distance_functions(queries: Tensor, keys: Tensor) -> Tensor:
    """Functions of the differences of inputs `(b, q, d)` and `(b, k, d)`: `(b, q, d * NUM_DISTANCES, k)`."""
    difference = (queries[:, :, :, None] - keys.mT[:, None])[:, :, :, None]
    ratio = difference / torch.tensor(WIDTHS).to(difference)[:, None]
    bumps = torch.exp(-0.5 * ratio.square())
    return torch.cat([bumps, ratio * bumps, difference.abs(), 0.5 * difference.square()], 3).flatten(2, 3)
