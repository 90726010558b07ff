"""Attention of rows to rows, with or without their distances.

Keys and values are those of rows that are known. Beside them stands a *sink*, a key of score zero whose value is zero:
rows that are all far away then say little, many say more than few, and nothing to attend to is no division by zero.

With differences of inputs, a score is the product of query and key plus functions of the signed difference, whose
coefficients are linear in the query's token: see `bayesmeta.networks.differences`. So attention can be a kernel from
the first step on, near to far or periodic, and what it learns at one place holds at all others.

Beside the tokens runs a *linear stream*, which begins as y. The same attention weights move it, then a matrix mixes
its channels, and no layer bends it; tokens see it after each layer. Posterior means are linear in y where the kernel is
known, and this stream is their short way out. What a layer adds to it has either sign and mixes heads, so that layers
together can take the steps of an iterative solution, whose products of kernels no head has by itself.

Source: Vaswani et al., Attention is all you need (2017).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bayesmeta.networks.differences import Differences
from bayesmeta.networks.perceptron import PerceptronLayer, zeroed

__all__ = ["AttentionLayer", "Known", "attend", "excluding"]

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
        num_distances, num_waves: functions of differences, and waves of each; zero without.
        hidden: width of the hidden layer.
    """

    def __init__(
        self, width: int, *, num_heads: int, linear_width: int, num_distances: int, num_waves: int, hidden: int
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
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
        self.wave = zeroed(nn.Linear(width, num_heads * 2 * num_waves)) if num_waves else None

    def forward(
        self,
        tokens: Tensor,
        linear: Tensor,
        num_known: int,
        before: Known | None,
        differences: Differences | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Known | None]:
        """Tokens and linear stream after the layer, and what it keeps of known ones, None where all came before.

        Args:
            tokens, linear: `(b, q, width)` and `(b, q, linear_width)`.
            num_known: so many of the tokens, from the first, are those of known rows.
            before: known rows that came earlier.
            differences: of all tokens and all known rows; None where their inputs are not looked at.
            mask: what `excluding` makes of which known rows count for which tokens, `(b, q, k)` or `(b, 1, k)`; None
                where all do.
        """
        normed = self.norm(tokens)
        own = None
        if num_known or before is None:
            own = self._known(normed[:, :num_known], linear[:, :num_known])
        known = own if before is None else before if own is None else before.and_more(own)
        assert known is not None
        taken = self._attend(normed, known, differences, mask)
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

    def _attend(self, normed: Tensor, known: Known, differences: Differences | None, mask: Tensor | None) -> Tensor:
        """`(b, q, heads, part of width and linear stream)`."""
        q, k, v = (self._by_head(part).transpose(1, 2) for part in (self.query(normed), *known))
        bias = None
        if differences is not None and self.wave is not None:
            q = torch.cat([q, self._amplitudes(self.wave(normed), differences.asked)], -1)
            k = torch.cat([k, differences.known[:, None].expand(-1, self.num_heads, -1, -1)], -1)
        if differences is not None and self.distance is not None:
            bias = (self._by_head(self.distance(normed)) @ differences.distances).transpose(1, 2)
        return attend(q, k, v, bias, mask).transpose(1, 2)

    def _amplitudes(self, chosen: Tensor, asked: Tensor) -> Tensor:
        """What makes of a key's waves those of the difference, in the amplitudes a, b that a query chose.

        a cos(A - B) + b sin(A - B) = (a cos A + b sin A) cos B + (a sin A - b cos A) sin B.
        """
        a, b = self._by_head(chosen).transpose(1, 2).chunk(2, -1)
        cos, sin = asked[:, None].chunk(2, -1)
        return torch.cat([a * cos + b * sin, a * sin - b * cos], -1)

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
