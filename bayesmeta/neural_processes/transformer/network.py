"""The network of the transformer neural process: known rows attend to each other, and what is asked to the known rows.

Two kinds of rows are known. *Context* rows attend to all context rows, so their order means nothing. *Later* rows
attend to the context and to the later rows up to themselves, so that they can be appended one after another without
another look at what was there: a chain of draws costs one row per draw.

Source: Nguyen and Grover, Transformer neural processes (2022); later rows: Hassan et al., Efficient autoregressive
inference for transformer probabilistic models (2026).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from bayesmeta.networks.attention import AttentionLayer, Known, excluding
from bayesmeta.networks.differences import NUM_DISTANCES, Differences, first_frequencies
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import zeroed

__all__ = ["Encoded", "TransformerNetwork"]

MOST = 2**22  # numbers that are held at once: what caches hold
NUM_FLAGS = 2  # of a token: whether its y is known, and whether it came later


class Encoded(NamedTuple):
    """Known rows as a network remembers them.

    Args:
        x: of known rows `(b, k, d)`.
        mask: which are real `(b, k)`.
        layers: what each layer keeps of them.
    """

    x: Tensor
    mask: Tensor
    layers: tuple[Known, ...]

    def repeated(self, num: int) -> "Encoded":
        """Each task so many times, one after another."""
        layers = tuple(Known(*(part.repeat_interleave(num, 0) for part in layer)) for layer in self.layers)
        return Encoded(self.x.repeat_interleave(num, 0), self.mask.repeat_interleave(num, 0), layers)

    def and_more(self, more: "Encoded") -> "Encoded":
        layers = tuple(a.and_more(b) for a, b in zip(self.layers, more.layers, strict=True))
        return Encoded(torch.cat([self.x, more.x], 1), torch.cat([self.mask, more.mask], 1), layers)


@dataclass(frozen=True, eq=False)
class TransformerNetwork(Weights):
    """Sizes of the network, with its weights.

    Args:
        num_inputs, num_y: columns of x, standardised, and of y.
        num_outputs: numbers that it answers with for each row that is asked about.
        num_locations: so many of these, the first, are linear in y up to what attention and the layers add.
        knows_stationarity: whether rows are told from each other by differences of x alone.
        width, num_layers, num_heads, linear_width, hidden: of tokens, attention, the linear stream, hidden layers.
        num_frequencies: of waves, by which attention sees how functions repeat.
    """

    num_inputs: int
    num_y: int
    num_outputs: int
    num_locations: int
    knows_stationarity: bool = True
    width: int = 48
    num_layers: int = 6
    num_heads: int = 4
    linear_width: int = 32
    hidden: int = 144
    num_frequencies: int = 8

    def build(self) -> "TransformerModule":
        return TransformerModule(self)


class TransformerModule(nn.Module):
    """See `TransformerNetwork`."""

    def __init__(self, sizes: TransformerNetwork) -> None:
        super().__init__()
        width, linear_width = sizes.width, sizes.linear_width
        num_seen = 2 * sizes.num_y + NUM_FLAGS + (0 if sizes.knows_stationarity else sizes.num_inputs)
        self.knows_stationarity, self.num_locations = sizes.knows_stationarity, sizes.num_locations
        self.embed = nn.Linear(num_seen, width)
        self.bend = nn.Linear(width, width)
        self.start = nn.Linear(sizes.num_y, linear_width, bias=False)
        self.layers = nn.ModuleList(
            AttentionLayer(
                width,
                num_heads=sizes.num_heads,
                linear_width=linear_width,
                num_distances=NUM_DISTANCES * sizes.num_inputs,
                num_waves=sizes.num_frequencies * sizes.num_inputs,
                hidden=sizes.hidden,
            )
            for _ in range(sizes.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.last = zeroed(nn.Linear(width, sizes.num_outputs))
        self.end = nn.Linear(linear_width, sizes.num_locations, bias=False) if sizes.num_locations else None
        self.log_frequencies = nn.Parameter(first_frequencies(sizes.num_frequencies).log())

    def forward(self, x: Tensor, y: Tensor, later: Tensor, x_asked: Tensor, counts: Tensor) -> Tensor:
        """Answers about rows, each of which may know other rows: what training asks, in one pass.

        Args:
            x, y: of rows that may be known `(b, k, d)` and `(b, k, num_y)`.
            later: which of them are later rows `(b, k)`.
            x_asked: `(b, t, d)`.
            counts: which of the k rows count for each of them, and then for each row that is asked about
                `(b, k + t, k)`.

        Returns:
            `(b, t, num_outputs)`.
        """
        num_known, every = x.shape[1], torch.cat([x, x_asked], 1)
        tokens, linear = self._start(every, y, later)
        differences, mask = self._differences(every, x), excluding(counts, x)
        for layer in self.layers:
            tokens, linear, _ = layer(tokens, linear, num_known, None, differences, mask)
        return self._answer(tokens[:, num_known:], linear[:, num_known:])

    def encode(self, x: Tensor, y: Tensor, mask: Tensor) -> Encoded:
        """Context rows, of which those count where `mask` `(b, k)` is true."""
        tokens, linear = self._start(x, y, torch.zeros_like(mask))
        pieces, known = self._pieces(x, x), []
        whole, real = self._differences(x, x) if len(pieces) == 1 else None, excluding(mask[:, None], x)
        for layer in cast(Sequence[AttentionLayer], self.layers):
            known.append(layer.known(tokens, linear))
            if len(known) == len(self.layers):
                break  # nobody asks what context rows would be after the last layer
            parts = [
                layer(
                    tokens[:, piece],
                    linear[:, piece],
                    0,
                    known[-1],
                    self._differences(x[:, piece], x) if whole is None else whole,
                    real,
                )
                for piece in pieces
            ]
            tokens, linear = (torch.cat([part[i] for part in parts], 1) for i in range(2))
        return Encoded(x, mask, tuple(known))

    def extend(self, before: Encoded, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Encoded:
        """Later rows, after those of `before` and after each other; all count where there is no mask `(b, m)`."""
        num = x.shape[1]
        if not num:
            return before
        tokens, linear = self._start(x, y, torch.ones_like(x[..., 0], dtype=torch.bool))
        differences, known = self._differences(x, torch.cat([before.x, x], 1)), []
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        up_to_itself = real[:, None] & torch.ones(num, num, dtype=torch.bool, device=x.device).tril()
        seen = excluding(torch.cat([before.mask[:, None].expand(-1, num, -1), up_to_itself], 2), x)
        for layer, old in zip(self.layers, before.layers, strict=True):
            tokens, linear, own = layer(tokens, linear, num, old, differences, seen)
            known.append(own)
        return before.and_more(Encoded(x, real, tuple(known)))

    def ask(self, known: Encoded, x: Tensor) -> Tensor:
        """Answers about rows x `(b, t, d)` given all known ones: `(b, t, num_outputs)`."""
        return torch.cat([self._ask(known, x[:, piece]) for piece in self._pieces(x, known.x)], 1)

    def _ask(self, known: Encoded, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(known.mask[:, :0])
        tokens, linear = self._start(x, known.x.new_zeros(len(x), 0, self.start.in_features), nothing)
        differences, mask = self._differences(x, known.x), excluding(known.mask[:, None], x)
        for layer, old in zip(self.layers, known.layers, strict=True):
            tokens, linear, _ = layer(tokens, linear, 0, old, differences, mask)
        return self._answer(tokens, linear)

    def _differences(self, queries: Tensor, keys: Tensor) -> Differences:
        return Differences.of(queries, keys, self.log_frequencies.exp())

    def _pieces(self, queries: Tensor, keys: Tensor) -> list[slice]:
        """Parts of the queries, in each of which there are no more than `MOST` functions of distances."""
        b, q, d = queries.shape
        size = max(1, MOST // max(1, b * keys.shape[1] * d * NUM_DISTANCES))
        return [slice(i, i + size) for i in range(0, max(q, 1), size)]

    def _start(self, x: Tensor, y: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and linear stream of rows x, of which the first are known: y and |y|, then zeros in their place."""
        flags = torch.stack([torch.ones_like(later), later], -1).to(y)
        after = (0, 0, 0, x.shape[1] - y.shape[1])
        seen = pad(torch.cat([y, y.abs(), flags], -1), after)
        if not self.knows_stationarity:
            seen = torch.cat([seen, x], -1)
        tokens = self.embed(seen)
        return tokens + self.bend(gelu(tokens)), pad(self.start(y), after)

    def _answer(self, tokens: Tensor, linear: Tensor) -> Tensor:
        answer = self.last(self.norm(tokens))
        if self.end is None:
            return answer
        straight = self.end(linear)
        return torch.cat([answer[..., : self.num_locations] + straight, answer[..., self.num_locations :]], -1)
