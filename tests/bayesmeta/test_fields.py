"""What every dataclass of tensors has: equality to a tolerance, dtype, device, copies."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.fields import LearnedFrom, same
from tests.families import F64, FAMILIES, Family, every_family

BETA = FAMILIES["beta_bernoulli"].prior


def changed(value: Any, relative: float) -> list[Any]:
    """The same with one number of one tensor changed, for each tensor, at any depth."""
    found = []
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if isinstance(inner, Tensor) and inner.is_floating_point() and inner.numel() and bool((inner != 0).any()):
            moved = inner.clone().contiguous()
            moved.reshape(-1)[moved.reshape(-1).abs().argmax()] *= 1.0 + relative
            found.append(value._replace(**{field.name: moved}))
        elif hasattr(inner, "equals") and not isinstance(inner, Data):  # whose padded rows do not count
            found += [value._replace(**{field.name: other}) for other in changed(inner, relative)]
    return found


@every_family
def test_equal_to_a_tolerance(family: Family) -> None:
    for value in (family.prior, family.prior.condition(family.tasks([3, 4]))):
        assert value.equals(value, rtol=0.0, atol=0.0)
        assert value.equals(value.to(torch.float32), rtol=1e-5, atol=1e-6)
        others = changed(value, 1e-3)
        assert others
        for other in others:
            assert not value.equals(other)
            assert not other.equals(value)
            assert value.equals(other, rtol=1e-2)
        for other in changed(value, 1e-9):
            assert value.equals(other)


def test_other_classes_shapes_and_devices_are_not_equal() -> None:
    for other in (None, 3.0, F64, FAMILIES["gamma_poisson"].prior, BETA.expand((2,)), BETA.to("meta")):
        assert not BETA.equals(other)
    assert BETA.to("meta").equals(BETA.to("meta"))


def test_what_was_learned_from_does_not_count() -> None:
    learned = dataclasses.replace(BETA, learned_from=LearnedFrom(3, 10))
    assert learned.equals(BETA)
    assert not LearnedFrom(3, 10).equals(LearnedFrom(3, 11))


def test_padded_rows_do_not_count() -> None:
    tasks = FAMILIES["linear_gaussian"].tasks([2, 4])
    x, y = tasks.x.clone(), tasks.y.clone()
    x[~tasks.mask], y[~tasks.mask] = 7.0, 7.0
    assert Data(x, y, tasks.mask).equals(tasks)
    y[0, 0] += 1.0
    assert not Data(x, y, tasks.mask).equals(tasks)
    assert not tasks.equals(Data(tasks.x, tasks.y, tasks.mask, torch.ones(2, 1)))


def test_nested_values() -> None:
    assert same({"a": [1.0, (F64, "b")]}, {"a": [1.0 + 1e-9, (F64 + 1e-15, "b")]}, 1e-6, 1e-12)
    assert not same({"a": 1.0}, {"b": 1.0}, 1e-6, 0.0)
    assert not same([F64], [F64, F64], 1e-6, 0.0)
    assert not same(F64, "b", 1e-6, 0.0)
    assert same(float("inf"), float("inf"), 1e-6, 0.0)


@every_family
def test_dtype_and_device(family: Family) -> None:
    for dtype in (torch.float64, torch.float32):
        moved = family.prior.to(dtype)
        assert moved.dtype == moved.condition(family.tasks([2, 3]).to(dtype)).dtype == dtype
        assert moved.device == torch.device("cpu")
    data = family.rows(2)
    assert (data.dtype, data.device) == (torch.float64, torch.device("cpu"))
    assert bm.Statistics.of(data).dtype == torch.float64
    assert bm.Statistics.of(data).device == torch.device("cpu")


def test_what_has_no_tensors_has_no_dtype() -> None:
    with pytest.raises(AttributeError, match="this LearnedFrom holds no tensors, and so has no dtype"):
        _ = LearnedFrom(1, 1).dtype
