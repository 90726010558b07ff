"""Multihead attention without distances, to which padded rows count for nothing and no rows are no division by zero.

Source: Vaswani et al., Attention is all you need (2017).
"""

import numpy as np
from torch import Tensor, nn

from bayesmeta.networks.attention import attend, excluding
from bayesmeta.networks.perceptron import PerceptronLayer, zeroed

__all__ = ["MultiheadAttention", "SelfAttentionLayer"]


class MultiheadAttention(nn.Module):
    """What queries take from values, by how well they match keys.

    Args:
        width: of queries, keys, values, and of what is taken.
        num_heads: each has its part of the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """`(*tasks, q, width)`, of queries `(*tasks, q, width)` to keys and values `(*batch, k, width)`.

        Tasks and batch are broadcast. Keys count where `mask` `(*batch, k)` is true.
        """
        q, k, v = (
            layer(part).unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)
            for layer, part in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        q, k, v = (part.expand(*batch, *part.shape[-2:]) for part in (q, k, v))
        return self.out(attend(q, k, v, None, excluding(mask[..., None, :], q)).transpose(-3, -2).flatten(-2))


class SelfAttentionLayer(nn.Module):
    """A stream of rows, plus what each takes from all, plus what a hidden layer makes of that: at first nothing."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = MultiheadAttention(width, num_heads)
        zeroed(self.attention.out)
        self.perceptron = PerceptronLayer(width, width)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows `(*batch, k, width)`, of which those are seen where `mask` `(*batch, k)` is true."""
        normed = self.norm(rows)
        return self.perceptron(rows + self.attention(normed, normed, normed, mask))
