"""Inputs of mixed kinds: standardised numbers, a column for each category, and an indicator of what is missing."""

import math

import pytest
import torch

from bayesmeta import Data
from bayesmeta.networks.embeddings import Inputs, indicate_missing


def tasks() -> Data:
    x = torch.tensor([[1.0, 0.0, 5.0], [3.0, 2.0, 5.0], [5.0, 1.0, 5.0]], dtype=torch.float64)
    return Data.of(x, torch.zeros(3, dtype=torch.float64))


def test_numbers_are_standardised_and_categories_get_columns() -> None:
    inputs = Inputs.of(tasks(), {1: 3})
    assert (inputs.numbers, inputs.num_outputs) == ([0, 2], 5)
    found = inputs(tasks().x)
    root = math.sqrt(1.5)
    expected = [[-root, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [root, 0.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("unseen", [-1.0, 3.0, 0.5])
def test_a_category_that_was_never_seen_is_near_none(unseen: float) -> None:
    x = tasks().x[:1].clone()
    x[0, 1] = unseen
    assert Inputs.of(tasks(), {1: 3})(x)[0, 2:].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("categories", [{3: 2}, {-1: 2}, {1: 0}])
def test_columns_that_cannot_be_categories_are_refused(categories: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="categories must be by column, from 0 to 2"):
        Inputs.of(tasks(), categories)


def test_what_is_missing_gets_an_indicator() -> None:
    found = indicate_missing([[1.0, math.nan], [math.nan, 2.0]])
    assert found.tolist() == [[1.0, 0.0, 0.0, 1.0], [0.0, 2.0, 1.0, 0.0]]
    Data.of(found, [0.0, 1.0])  # finite numbers


def test_no_rows_have_no_scale() -> None:
    with pytest.raises(ValueError, match="these have none"):
        Inputs.of(Data.of(torch.zeros(0, 2).double(), torch.zeros(0).double()))
