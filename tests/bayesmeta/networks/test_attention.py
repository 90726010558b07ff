"""Attention to known rows: what is masked, what is far away, and what stays the same when all inputs move."""

import pytest
import torch
from torch import Tensor

from bayesmeta.networks.attention import AttentionLayer, excluding
from bayesmeta.networks.differences import NUM_DISTANCES, Differences
from bayesmeta.random import randn, seeded
from tests.families import F64, seed

WIDTH, LINEAR = 8, 4
FREQUENCIES = torch.tensor([0.7, 3.0, 11.0], dtype=torch.float64)


def layer(num_distances: int = NUM_DISTANCES, num_waves: int = len(FREQUENCIES)) -> AttentionLayer:
    """With all weights drawn, also those that begin at zero."""
    sizes = {"num_heads": 2, "linear_width": LINEAR, "num_distances": num_distances, "num_waves": num_waves}
    with seeded(seed(1)):
        made = AttentionLayer(WIDTH, **sizes, hidden=6).double()
        for value in made.parameters():
            value.data.normal_(0.0, 0.5)
    return made.requires_grad_(False)


def rows(num: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, linear stream and inputs of two tasks."""
    shapes = ((2, num, WIDTH), (2, num, LINEAR), (2, num, 1))
    return tuple(randn(shape, like=F64, generator=seed(number + i)) for i, shape in enumerate(shapes))


def differences(queries: Tensor, keys: Tensor) -> Differences:
    return Differences.of(queries, keys, FREQUENCIES)


@pytest.mark.parametrize("num_waves", [0, len(FREQUENCIES)])
@pytest.mark.parametrize("num_distances", [0, NUM_DISTANCES])
def test_keys_that_were_kept_answer_as_in_one_pass(num_distances: int, num_waves: int) -> None:
    made, (tokens, linear, x) = layer(num_distances, num_waves), rows(7, 1)
    known, asked = slice(0, 4), slice(4, 7)
    every = differences(x, x[:, known])
    together = made(tokens, linear, 4, None, every, None)
    *alone, kept = made(tokens[:, known], linear[:, known], 4, None, every.rows(known), None)
    later = made(tokens[:, asked], linear[:, asked], 0, kept, every.rows(asked), None)
    for whole, start, end in zip(together[:2], alone, later[:2], strict=True):
        torch.testing.assert_close(torch.cat([start, end], 1), whole, rtol=1e-10, atol=1e-10)


def test_only_differences_of_inputs_matter() -> None:
    made, (tokens, linear, x) = layer(), rows(6, 11)
    found = made(tokens, linear, 5, None, differences(x, x[:, :5]), None)
    moved = made(tokens, linear, 5, None, differences(x + 7.0, x[:, :5] + 7.0), None)
    for one, other in zip(found[:2], moved[:2], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)
    turned = made(tokens, linear, 5, None, differences(-x, -x[:, :5]), None)
    assert (turned[0] - found[0]).abs().max() > 1e-6, "which side a row lies on is seen"


def test_masked_rows_say_nothing_and_nothing_to_attend_to_is_no_division_by_zero() -> None:
    made, (tokens, linear, x) = layer(), rows(5, 4)
    mask = excluding(torch.tensor([[True, True, False, False], [False] * 4])[:, None], linear)
    between = differences(x, x[:, :4])
    found = made(tokens, linear, 4, None, between, mask)[0][:, 4]
    changed = tokens.clone()
    changed[0, 2:4], changed[1, :4] = 9.0, -9.0
    moved = made(changed, linear + 3.0 * (changed != tokens)[..., :LINEAR], 4, None, between, mask)[0][:, 4]
    torch.testing.assert_close(moved, found, rtol=1e-12, atol=1e-12)
    empty = made(tokens[1:, 4:], linear[1:, 4:], 0, None, differences(x[1:, 4:], x[1:, :0]), None)
    torch.testing.assert_close(empty[0][0, 0], found[1], rtol=1e-12, atol=1e-12)


def test_the_linear_stream_is_linear_in_itself() -> None:
    made, (tokens, linear, x) = layer(), rows(5, 7)
    between = differences(x, x)

    def out(stream: Tensor) -> Tensor:
        return made(tokens, stream, 5, None, between, None)[1]

    torch.testing.assert_close(out(3.0 * linear) - out(0.0 * linear), 3.0 * out(linear) - 3.0 * out(0.0 * linear))


def test_order_of_known_rows_is_irrelevant() -> None:
    made, (tokens, linear, x) = layer(), rows(6, 9)
    order = torch.tensor([3, 0, 4, 1, 2, 5])
    found = made(tokens, linear, 5, None, differences(x, x[:, :5]), None)[0][:, 5]
    mixed = (part[:, order] for part in (tokens, linear))
    again = made(*mixed, 5, None, differences(x[:, order], x[:, order[:5]]), None)[0][:, 5]
    torch.testing.assert_close(again, found, rtol=1e-12, atol=1e-12)
