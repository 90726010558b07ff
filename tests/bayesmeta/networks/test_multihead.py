"""Multihead attention beside torch's own, and what counts for nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bayesmeta.networks.multihead import MultiheadAttention, SelfAttentionLayer
from bayesmeta.random import randn, seeded
from tests.families import F64
from tests.seeds import seed


def drawn(make: Callable[..., nn.Module], *sizes: int, **options: Any) -> Any:
    """A module in float64, all weights random."""
    generator = seed(1)
    with seeded(generator):
        module = make(*sizes, **options).double().requires_grad_(False)
    for value in module.parameters():
        value.copy_(randn(value.shape, like=value, generator=generator))
    return module


def test_it_is_that_of_torch_with_a_key_and_a_value_of_zero() -> None:
    ours = drawn(MultiheadAttention, 6, 2)
    theirs = drawn(nn.MultiheadAttention, 6, 2, add_zero_attn=True, batch_first=True)
    layers = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    queries, keys, values = (randn((3, n, 6), like=F64, generator=seed(3 + n)) for n in (4, 5, 5))
    mask = torch.arange(5) < torch.tensor([5, 2, 0])[:, None]
    expected, _ = theirs(queries, keys, values, key_padding_mask=~mask)
    torch.testing.assert_close(ours(queries, keys, values, mask), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num", [0, 3])
def test_rows_that_do_not_count_change_nothing(num: int) -> None:
    layer = drawn(SelfAttentionLayer, 6, 3)
    rows, pads = (randn((2, n, 6), like=F64, generator=seed(n)) for n in (num, 4))
    mask = (torch.arange(num + 4) < num).expand(2, -1)
    padded = layer(torch.cat([rows, pads], 1), mask)[:, :num]
    torch.testing.assert_close(padded, layer(rows, mask[:, :num]), rtol=1e-12, atol=1e-12)


def test_queries_of_many_tasks_look_at_the_rows_of_one() -> None:
    attention = drawn(MultiheadAttention, 6, 2)
    queries, rows = (randn(shape, like=F64, generator=seed(5)) for shape in ((3, 2, 4, 6), (2, 5, 6)))
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    whole = attention(queries, rows, rows, mask)
    each = torch.stack([attention(part, rows, rows, mask) for part in queries])
    torch.testing.assert_close(whole, each, rtol=1e-12, atol=1e-12)
