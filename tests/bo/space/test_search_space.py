"""Parameters to the unit cube and back, for every kind of distribution."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import polars as pl
import polars.testing
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import bayesmeta as bm
from bayesmeta.datasets.sklearn_tuning import PROBLEMS
from benchmarks.tuning.collect_tasks import NUM_CONFIGS, SEED, shared_configs
from bo.space.search_space import SearchSpace
from tests.families import seed

numbers = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


@st.composite
def floats(draw: Any) -> FloatDistribution:
    log = draw(st.booleans())
    low, high = sorted(draw(st.tuples(*[positive if log else numbers] * 2)))
    return FloatDistribution(low, high, log=log)


@st.composite
def stepped(draw: Any) -> FloatDistribution:
    # tenths of whole numbers, so that `high` needs no adjustment, which Optuna announces with a warning
    low, step, steps = draw(st.integers(-1000, 1000)), draw(st.integers(1, 50)), draw(st.integers(0, 200))
    return FloatDistribution(low / 10, (low + step * steps) / 10, step=step / 10)


@st.composite
def integers(draw: Any) -> IntDistribution:
    if draw(st.booleans()):
        low, high = sorted(draw(st.tuples(*[st.integers(1, 10**6)] * 2)))
        return IntDistribution(low, high, log=True)
    low, step, steps = draw(st.integers(-(10**6), 10**6)), draw(st.integers(1, 50)), draw(st.integers(0, 10**5))
    return IntDistribution(low, low + step * steps, step=step)


choices = st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=3))
categories = st.lists(choices, min_size=1, max_size=5, unique=True).map(CategoricalDistribution)
kinds = {"float": floats(), "stepped": stepped(), "integer": integers(), "categorical": categories}
spaces = st.lists(st.one_of(*kinds.values()), min_size=1, max_size=6).map(
    lambda dists: SearchSpace({f"p{i}": dist for i, dist in enumerate(dists)})
)


def valid(dist: BaseDistribution, value: Any) -> bool:
    return dist._contains(dist.to_internal_repr(value))


def same_value(dist: BaseDistribution, a: Any, b: Any) -> bool:
    """To nine digits of the range, or as far as floats tell values in it apart."""
    if not isinstance(dist, FloatDistribution):
        return bool(a == b)
    return abs(a - b) <= 1e-9 * (dist.high - dist.low) + 2.0 * math.ulp(max(abs(dist.low), abs(dist.high)))


def all_valid(space: SearchSpace, x: torch.Tensor) -> None:
    assert x.isfinite().all()
    assert ((x >= 0) & (x <= 1)).all()
    torch.testing.assert_close(space.snap(x), x, rtol=0, atol=1e-12)
    for params in space.from_unit(x):
        assert list(params) == list(space.names)
        assert all(valid(space.distributions[name], value) for name, value in params.items())


def a_value(dist: Any, u: float) -> Any:
    """A value of a distribution, written without the code under test."""
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(u * len(dist.choices))]
    if dist.step:
        last = round((dist.high - dist.low) / dist.step)
        return min(dist.low + int(u * (last + 1)) * dist.step, dist.high)
    value = dist.low * (dist.high / dist.low) ** u if dist.log else dist.low + u * (dist.high - dist.low)
    return min(max(value, dist.low), dist.high)


@pytest.mark.parametrize("kind", kinds)
@settings(max_examples=50)
@given(data=st.data(), u=st.floats(0, 1, exclude_max=True))
def test_a_valid_value_comes_back(kind: str, data: Any, u: float) -> None:
    dist = data.draw(kinds[kind])
    space, value = SearchSpace({"p": dist}), a_value(dist, u)
    x = space.to_unit([{"p": value}])
    assert x.shape == (1, space.num_columns)
    assert ((x >= 0) & (x <= 1)).all()
    back = space.from_unit(x)[0]["p"]
    assert valid(dist, back)
    if kind == "float":
        assert back == pytest.approx(value, rel=1e-12, abs=1e-15 * (dist.high - dist.low) if not dist.log else 0)
    elif kind == "stepped":
        assert back == pytest.approx(value, rel=1e-12, abs=1e-12)
    else:
        assert back == value
        assert type(back) is type(value)


@settings(max_examples=50)
@given(space=spaces, number=st.integers(0, 10**6))
def test_whatever_is_drawn_is_valid(space: SearchSpace, number: int) -> None:
    generator = seed(number)
    x = space.sobol(4, generator=generator)
    assert x.shape == (4, space.num_columns)
    all_valid(space, x)
    drawn = space.from_unit(x)
    for params, again in zip(drawn, space.from_unit(space.to_unit(drawn)), strict=True):
        assert all(same_value(space.distributions[name], value, again[name]) for name, value in params.items())
    near = space.neighbours(x, 3, generator=generator)
    assert near.shape == (4, 3, space.num_columns)
    all_valid(space, near.flatten(0, 1))
    anywhere = 3 * torch.rand(5, space.num_columns, generator=generator, dtype=torch.float64) - 1
    all_valid(space, space.snap(anywhere))


@settings(max_examples=50)
@given(space=spaces)
def test_a_space_is_saved_as_json(space: SearchSpace) -> None:
    again = SearchSpace.from_state(space.state_dict())
    assert again == space
    assert again.names == space.names


MIXED = SearchSpace(
    {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "depth": IntDistribution(1, 4),
        "kind": CategoricalDistribution(("a", "b", "c")),
        "flag": CategoricalDistribution((False, True)),
        "share": FloatDistribution(0.0, 1.0, step=0.25),
        "fixed": IntDistribution(7, 7),
    }
)


def test_a_space_is_saved_as_a_file(tmp_path: Path) -> None:
    bm.save(MIXED, tmp_path / "space.safetensors")
    again = bm.load(tmp_path / "space.safetensors")
    assert again == MIXED
    assert again.names == MIXED.names


def test_the_encoding_is_as_documented() -> None:
    params = {"rate": 1e-2, "depth": 2, "kind": "b", "flag": True, "share": 0.25, "fixed": 7}
    expected = [0.5, 0.375, 0.0, 1.0, 0.0, 1.0, 0.3, 0.5]
    assert MIXED.to_unit([params]).tolist() == [pytest.approx(expected)]
    assert MIXED.slices()["kind"] == slice(2, 5)
    assert MIXED.num_columns == 8


def test_missing_parameters_are_in_the_middle() -> None:
    nothing = [0.5, 0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    for value in (None, math.nan, np.float32("nan"), pd.NA):
        assert MIXED.to_unit([dict.fromkeys(MIXED.names, value)]).tolist() == [nothing]
    assert MIXED.to_unit([{"of another space": 1}]).tolist() == [nothing]
    assert MIXED.to_unit([]).shape == (0, 8)
    with_none = SearchSpace({"weight": CategoricalDistribution((None, "balanced"))})
    assert with_none.to_unit([{"weight": None}, {}]).tolist() == [[0.0], [0.5]]


def test_scalars_of_numpy_are_numbers() -> None:
    row = {"rate": np.float32(0.5), "depth": np.int64(3), "kind": np.str_("c"), "flag": np.bool_(True)}
    plain = {"rate": 0.5, "depth": 3, "kind": "c", "flag": True}
    assert torch.equal(MIXED.to_unit([row]), MIXED.to_unit([plain]))


@pytest.mark.parametrize(
    ("name", "value"), [("rate", 2.0), ("rate", "fast"), ("depth", 2.5), ("kind", "d"), ("share", 0.3), ("fixed", 8)]
)
def test_a_value_from_elsewhere_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} of row 1 must be a value of .*; got {value!r}"):
        MIXED.to_unit([{}, {name: value}])
    assert not MIXED.contains({name: value})
    assert MIXED.contains({})


def test_shares_of_the_interval_are_equal() -> None:
    counts: dict[str, dict[Any, int]] = {name: {} for name in MIXED.names}
    for params in MIXED.from_unit(MIXED.sobol(1200, generator=seed(0))):
        for name, value in params.items():
            counts[name][value] = counts[name].get(value, 0) + 1
    for name, num_values in {"depth": 4, "kind": 3, "flag": 2, "share": 5, "fixed": 1}.items():
        assert len(counts[name]) == num_values
        assert all(abs(count - 1200 / num_values) < 20 for count in counts[name].values())


def test_neighbours_differ_and_stay_near() -> None:
    x = MIXED.sobol(50, generator=seed(0))
    near = MIXED.neighbours(x, 40, scale=0.02, generator=seed(1))
    assert ((near != x[:, None]).any(-1)).double().mean() > 0.95  # a float may be clipped back to where it was
    rate, depth, kind = near[..., 0], near[..., 1], near[..., 2:5]
    assert (rate - x[:, None, 0]).abs().max() < 0.02 * 7
    assert ((depth - x[:, None, 1]).abs().unique().numpy().round(9) == [0.0, 0.25]).all()  # by one value, no less
    flipped = (kind != x[:, None, 2:5]).any(-1).double().mean()
    assert 0.1 < flipped < 0.5


def test_draws_follow_the_generator() -> None:
    first, again, other = (MIXED.sobol(8, generator=seed(number)) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    near = [MIXED.neighbours(first, 2, generator=seed(number)) for number in (0, 0, 1)]
    assert torch.equal(near[0], near[1])
    assert not torch.equal(near[0], near[2])


def test_points_keep_their_dtype() -> None:
    x = MIXED.sobol(3, generator=seed(0)).float()
    assert MIXED.snap(x).dtype == MIXED.neighbours(x, 2, generator=seed(0)).dtype == torch.float32


@pytest.mark.parametrize("model", PROBLEMS)
def test_the_shipped_tables_hold_quantiles_of_their_space(model: str) -> None:
    from scipy.stats import qmc

    space = SearchSpace(PROBLEMS[model].space)
    uniform = qmc.Sobol(len(space.names), seed=SEED).random(NUM_CONFIGS)
    ours = pl.DataFrame(space.from_unit(space.quantile(torch.tensor(uniform))))
    polars.testing.assert_frame_equal(ours, pl.DataFrame(shared_configs(model)), rel_tol=1e-12)


def test_a_width_that_does_not_fit_is_an_error() -> None:
    for method in (MIXED.snap, MIXED.from_unit, lambda x: MIXED.neighbours(x, 1)):
        with pytest.raises(ValueError, match=r"x must have 8 columns.*got shape \(2, 3\)"):
            method(torch.zeros(2, 3))


def test_spaces_must_hold_parameters() -> None:
    with pytest.raises(ValueError, match="at least one parameter"):
        SearchSpace({})


def test_studies_are_joined() -> None:
    first, second = (optuna.create_study() for _ in range(2))
    first.enqueue_trial({"depth": 2, "rate": 0.1, "kind": "a", "share": 0.5})
    trial = first.ask()
    trial.suggest_int("depth", 2, 6, step=2)
    trial.suggest_float("rate", 0.1, 1.0, log=True)
    trial.suggest_categorical("kind", ["a", "b"])
    trial.suggest_float("share", 0.0, 1.0, step=0.5)
    trial = second.ask()
    trial.suggest_int("depth", 3, 8)
    trial.suggest_float("rate", 0.01, 0.5, log=True)
    trial.suggest_categorical("kind", ["b", "c"])
    trial.suggest_float("share", 0.5, 2.0, step=0.5)
    trial.suggest_float("momentum", 0.0, 1.0)
    assert SearchSpace.from_studies([first, second]).distributions == {
        "depth": IntDistribution(2, 8),
        "rate": FloatDistribution(0.01, 1.0, log=True),
        "kind": CategoricalDistribution(("a", "b", "c")),
        "share": FloatDistribution(0.0, 2.0, step=0.5),
        "momentum": FloatDistribution(0.0, 1.0),
    }
    trial.suggest_float("width", 0.5, 8.0)
    first.ask().suggest_int("width", 2, 64, step=2)
    assert SearchSpace.from_studies([first, second]).distributions["width"] == FloatDistribution(0.5, 64.0)
    third = optuna.create_study()
    third.ask().suggest_float("kind", 0, 1)
    with pytest.raises(ValueError, match="disagree on parameter 'kind'"):
        SearchSpace.from_studies([first, third])
    with pytest.raises(ValueError, match="no trial of the studies has parameters"):
        SearchSpace.from_studies([optuna.create_study()])


COLUMNS = {
    "rate": [1e-4, 1e-2, 1.0],
    "share": [0.01, 5.0, 10.0],
    "few": [0.1, 0.2, 0.3],
    "depth": [1, 2, 3],
    "units": [4, 64, 1024],
    "whole": [1.0, None, 3.0],
    "kind": ["b", None, "a"],
    "flag": [True, False, True],
}


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame], ids=["polars", "pandas"])
def test_a_space_is_read_off_a_table(make: Any) -> None:
    assert SearchSpace.infer(make(COLUMNS), list(COLUMNS)).distributions == {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "share": FloatDistribution(0.01, 10.0),
        "few": FloatDistribution(0.1, 0.3),
        "depth": IntDistribution(1, 3),
        "units": IntDistribution(4, 1024, log=True),
        "whole": IntDistribution(1, 3),
        "kind": CategoricalDistribution(("a", "b")),
        "flag": CategoricalDistribution((False, True)),
    }


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        (["b"], [1, 2], "'b' is not a column; the table has a"),
        (["a", "a"], [1, 2], "'a' is named more than once"),
        (["a"], [1, 1], "'a' must vary over the table; it has only the value 1"),
        (["a"], [None, None], "'a' must vary over the table; it has no value"),
        (["a"], [1.0, math.inf], "'a' must be finite; its values span 1.0 to inf"),
        (["a"], [[1], [2]], "'a' must hold numbers, or strings, or booleans; got list"),
    ],
)
def test_a_column_that_cannot_be_a_parameter_is_named(columns: list[str], values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace.infer(pl.DataFrame({"a": values}), columns)


@pytest.mark.parametrize(("low", "high"), [(0.1, 1000.0), (3e-7, 0.7), (1e-5, 1e5)])
def test_the_ends_of_a_range_are_reached(low: float, high: float) -> None:
    for log in (False, True):
        space = SearchSpace({"rate": FloatDistribution(low, high, log=log)})
        ends = space.from_unit(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
        assert [params["rate"] for params in ends] == [low, high]
        assert space.decode(torch.tensor([[0.0], [1.0]], dtype=torch.float64)).flatten().tolist() == [low, high]
