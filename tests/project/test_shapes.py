"""Wrong shapes are found while the tests run, if they show in the first calls of a function."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from bayesmeta.networks.features import TanhFeatures
from bo.samplers.request import distance
from tests.shapes import CALLS, check_anew

POINTS, NARROW = torch.zeros(3, 2), torch.zeros(3, 1)


def test_the_first_calls_are_checked_anew_in_each_test() -> None:
    for _ in range(CALLS - 1):
        distance(POINTS, POINTS)
    with pytest.raises(TypeCheckError, match="distance"):
        distance(POINTS, NARROW)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):  # torch's own word on what is no longer checked
        distance(POINTS, NARROW)
    check_anew()
    with pytest.raises(TypeCheckError, match="distance"):
        distance(POINTS, NARROW)


def test_what_a_function_returns_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "amin", lambda self, dim: self)
    with pytest.raises(TypeCheckError, match="return value"):
        distance(POINTS, POINTS)


def test_fields_of_a_dataclass_are_checked() -> None:
    TanhFeatures(weight=NARROW, bias=torch.zeros(3), centre=torch.zeros(1), scale=torch.ones(1))
    with pytest.raises(TypeCheckError):
        TanhFeatures(weight=NARROW, bias=torch.zeros(4), centre=torch.zeros(1), scale=torch.ones(1))


def test_what_a_function_without_sizes_is_given_is_checked() -> None:
    called = []

    @jaxtyped(typechecker=beartype)
    def half(number: int, parts: "list[int] | None" = None) -> int:
        called.append(number)
        return number / 2  # type: ignore[return-value]

    for wrong in ((1.0,), (1, [1.0])):
        with pytest.raises(TypeCheckError, match="half"):
            half(*wrong)
    assert not called
    with pytest.raises(TypeCheckError, match="return value"):
        half(1)


def test_a_size_is_one_in_arguments_and_in_what_is_returned() -> None:
    @jaxtyped(typechecker=beartype)
    def first(x: Float[Tensor, "n d"], num: int) -> Float[Tensor, "n"]:
        return outer(x)[:num]

    @jaxtyped(typechecker=beartype)
    def outer(x: Float[Tensor, "d n"]) -> Float[Tensor, "d"]:  # letters of its own
        return x[:, 0]

    assert first(POINTS, 3).shape == (3,)
    with pytest.raises(TypeCheckError, match="return value"):
        first(POINTS, 2)


def test_functions_of_one_definition_are_checked_each_with_what_it_closes_over() -> None:
    def adding(number: int) -> Callable[..., Any]:
        @jaxtyped(typechecker=beartype)
        def add(x: int, *, twice: bool = False) -> int:
            return (x + number) * (2 if twice else 1)

        return add

    assert [adding(number)(1, twice=True) for number in (1, 2)] == [4, 6]
    with pytest.raises(TypeCheckError, match="add"):
        adding(3)(1.0)
    with pytest.raises(TypeCheckError, match="return value"):
        adding(0.5)(1)
