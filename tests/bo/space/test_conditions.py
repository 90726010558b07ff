"""Parameters that are there only with some choices of a category: found in configurations, and kept to by a space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import bayesmeta as bm
from bo import Between, SearchSpace
from bo.space.conditions import is_ruled_out, learn_conditions
from bo.space.study_space import applying_conditions
from tests.families import seed

SPACE: dict[str, BaseDistribution] = {
    "width": IntDistribution(1, 9),
    "model": CategoricalDistribution(("tree", "net")),
    "c": FloatDistribution(1e-3, 1e3, log=True),
    "optimiser": CategoricalDistribution(("sgd", "adam", "lbfgs")),
    "momentum": FloatDistribution(0.0, 1.0),
    "scheme": CategoricalDistribution(("a", "b", "c")),
    "layers": IntDistribution(1, 4),
    "second": IntDistribution(8, 256, log=True),
    "third": IntDistribution(8, 256, log=True),
}
CONDITIONS: dict[str, Any] = {
    "second": ("layers", Between(2)),
    "third": ("layers", (3, 4)),
    "momentum": ("optimiser", ("sgd",)),
    "scheme": ("optimiser", ("sgd", "adam")),
    "optimiser": ("model", ("net",)),
    "width": ("model", ("net",)),
    "layers": ("model", ("net",)),
}
NET = SearchSpace(SPACE, CONDITIONS)
TREE = {"model": "tree", "c": 1.0}
ADAM = {"model": "net", "c": 1.0, "width": 3, "optimiser": "adam", "scheme": "b", "layers": 1}
SGD = {**ADAM, "optimiser": "sgd", "momentum": 0.9, "layers": 2, "second": 16}
LBFGS = {"model": "net", "c": 1.0, "width": 5, "optimiser": "lbfgs", "layers": 4, "second": 32, "third": 64}
DEEP = {**LBFGS, "layers": 3}
SHALLOW = {**LBFGS, "layers": 1}
del SHALLOW["second"], SHALLOW["third"]
ROWS: list[dict[str, Any]] = [TREE, ADAM, SGD, LBFGS, DEEP, SHALLOW]


def allowed(params: dict[str, Any]) -> set[str]:
    """Written out by hand."""
    names = {"model", "c"}
    if params["model"] == "net":
        names |= {"width", "optimiser", "layers"}
        names |= {"second"} if params["layers"] > 1 else set()
        names |= {"third"} if params["layers"] > 2 else set()
        names |= {"momentum", "scheme"} if params["optimiser"] == "sgd" else set()
        names |= {"scheme"} if params["optimiser"] == "adam" else set()
    return names


def test_conditions_are_found() -> None:
    found = learn_conditions(ROWS, SPACE)
    assert found.keys() == CONDITIONS.keys()
    for name, (decider, values) in CONDITIONS.items():
        assert found[name][0] == decider
        for value in range(1, 5) if decider == "layers" else SPACE[decider].choices:  # type: ignore[attr-defined]
            assert (value in found[name][1]) == (value in values)


def number_of_layers(with_it: Sequence[int], without: Sequence[int]) -> Any:
    rows = [{"layers": n, "second": 8} for n in with_it] + [{"layers": n} for n in without]
    return learn_conditions(rows, {"layers": IntDistribution(1, 20), "second": SPACE["second"]}).get("second")


def test_conditions_on_whole_numbers_are_found() -> None:
    assert number_of_layers([2, 3], [1, 1]) == ("layers", Between(2))
    assert number_of_layers([8, 9], [1, 3]) == ("layers", Between(6)), "half way where no row tells"
    assert number_of_layers([1, 2], [5, 7]) == ("layers", Between(high=3))
    assert number_of_layers([4, 6], [1, 9]) == ("layers", Between(3, 7))
    assert number_of_layers([2, 5], [3, 1]) is None, "with an exception"
    assert number_of_layers([2, 3, 4], [1]) is None, "few rows split by chance"
    assert str(Between(2)) == "2 or more"
    assert str(Between(high=3)) == "3 or less"
    assert str(Between(3, 7)) == "from 3 to 7"
    assert "whole, 8 to 256, log scale, where layers is 2 or more" in repr(NET)


def test_what_comes_along_decides_last() -> None:
    """A category of the second layer explains the width of the second layer, and says nothing of when it is there."""
    space = {"layers": SPACE["layers"], "second": SPACE["second"], "gated": CategoricalDistribution((True, False))}
    rows: list[dict[str, Any]] = [{"layers": 1}, {"layers": 1}]
    rows += [{"layers": n, "second": 8, "gated": n == 3} for n in (2, 3, 4)]
    assert learn_conditions(rows, space) == {"second": ("layers", Between(2)), "gated": ("layers", Between(2))}
    assert learn_conditions([{"kind": "a"}], {"kind": SPACE["model"]}) == {}


def test_a_condition_on_a_number_that_has_one_value() -> None:
    space: dict[str, BaseDistribution] = {"layers": IntDistribution(3, 3), "second": SPACE["second"]}
    for low in (2, 4):
        found = SearchSpace(space, {"second": ("layers", Between(low))}).from_unit(torch.full((1, 2), 0.5))
        assert ("second" in found[0]) == (low == 2)


def test_a_study_with_more_layers_keeps_to_what_is_known_of_them() -> None:
    new = {**SPACE, "layers": IntDistribution(1, 9)}
    found = applying_conditions(NET, new)
    assert found["second"] == ("layers", Between(2))
    assert found["third"] == ("layers", (3, 4))
    assert applying_conditions(NET, {**SPACE, "layers": IntDistribution(1, 3)})["third"] == ("layers", (3,))
    assert "second" not in applying_conditions(NET, {**SPACE, "layers": FloatDistribution(1, 3)})


def test_nothing_is_found_where_an_exception_speaks_against_it() -> None:
    assert learn_conditions([SGD, ADAM], {"c": SPACE["c"], "model": SPACE["model"]}) == {}
    assert "momentum" not in learn_conditions([*ROWS, {**ADAM, "momentum": 0.5}, ADAM], SPACE)
    assert "width" not in learn_conditions([{"model": "net", "width": 1}, {"model": "net"}, {"model": "tree"}], SPACE)
    assert learn_conditions([], SPACE) == {}


def test_two_categories_that_explain_each_other_do_not_do_so_in_a_circle() -> None:
    rows = [{"model": "net", "scheme": "a"}, {"optimiser": "sgd"}]
    found = learn_conditions(rows, SPACE)
    SearchSpace(SPACE, found)  # which refuses a circle


def test_what_is_ruled_out() -> None:
    assert is_ruled_out("momentum", CONDITIONS, {"optimiser": "adam"})
    assert is_ruled_out("momentum", CONDITIONS, {"model": "tree"})
    assert not is_ruled_out("momentum", CONDITIONS, {"model": "net"})
    assert not is_ruled_out("c", CONDITIONS, TREE)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"depth": ("model", ("net",))},
            "must be of a parameter on a category or a whole number; got 'depth' on 'model'",
        ),
        ({"width": ("c", (1.0,))}, "must be of a parameter on a category or a whole number; got 'width' on 'c'"),
        ({"width": ("model", ("forest",))}, "condition of 'width' must be on choices of 'model'; got 'forest'"),
        ({"c": ("model", Between(1))}, "condition of 'c' must be on choices of 'model'; got the numbers 1 or more"),
        ({"c": ("width", (0,))}, "condition of 'c' must be on choices of 'width'; got 0"),
        ({"model": ("model", ("net",))}, "condition of 'model' must not depend on 'model' itself"),
        (
            {"model": ("optimiser", ("sgd",)), "optimiser": ("model", ("net",)), "c": ("model", ("net",))},
            "condition of 'model' must not depend on 'model' itself; it does by 'optimiser'",
        ),
    ],
)
def test_conditions_that_cannot_be(conditions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace(SPACE, conditions)


# ---- a space keeps to its conditions


def all_valid(x: torch.Tensor) -> None:
    torch.testing.assert_close(NET.snap(x), x, rtol=0, atol=1e-12)
    configurations = NET.from_unit(x)
    assert all(set(params) == allowed(params) for params in configurations)
    torch.testing.assert_close(NET.to_unit(configurations), x, rtol=0, atol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_whatever_is_drawn_keeps_to_them(number: int) -> None:
    generator = seed(number)
    x = NET.sobol(16, generator=generator)
    all_valid(x)
    all_valid(NET.neighbours(x, 4, generator=generator).flatten(0, 1))
    all_valid(NET.snap(3 * torch.rand(8, NET.num_columns, generator=generator, dtype=torch.float64) - 1))


def test_configurations_come_back() -> None:
    assert NET.from_unit(NET.to_unit(ROWS)) == ROWS
    numbers = NET.decode(NET.to_unit(ROWS))
    assert numbers.isnan().tolist() == [[name not in row for name in SPACE] for row in ROWS]


def test_neighbours_differ_in_what_is_there() -> None:
    x = NET.to_unit([TREE])
    near = NET.from_unit(NET.neighbours(x, 400, generator=seed(0))[0])
    assert all(params != TREE for params in near)
    assert {params["layers"] for params in near if "layers" in params} == {1, 2, 3, 4}
    nets = [params for params in near if params["model"] == "net"]
    assert 20 < len(nets) < 380
    # what a neighbour has and the point has not may be anywhere
    assert {params["width"] for params in nets} == set(range(1, 10))
    assert {params["optimiser"] for params in nets} == {"sgd", "adam", "lbfgs"}


def test_they_are_saved(tmp_path: Path) -> None:
    bm.save(NET, tmp_path / "space.safetensors")
    assert bm.load(tmp_path / "space.safetensors") == NET
    before_there_were_any = {"distributions": SearchSpace(SPACE).state_dict()["distributions"]}
    assert SearchSpace.from_state(before_there_were_any) == SearchSpace(SPACE)


def test_they_are_read_off_tables_and_studies() -> None:
    table = pl.DataFrame([{name: row.get(name) for name in SPACE} for row in ROWS])
    assert SearchSpace.infer(table, ["model", "width"]).conditions == {"width": ("model", ("net",))}
    study = optuna.create_study()
    for row in ROWS:
        distributions = {name: SPACE[name] for name in row}
        study.add_trial(optuna.trial.create_trial(params=row, distributions=distributions, value=1.0))
    # a trial that failed may have ended before it asked for everything
    study.add_trial(
        optuna.trial.create_trial(
            params={"model": "net"}, distributions={"model": SPACE["model"]}, state=optuna.trial.TrialState.FAIL
        )
    )
    found = SearchSpace.from_studies([study]).conditions
    assert found["momentum"] == ("optimiser", ("sgd",))
    assert found["width"] == ("model", ("net",))
    assert found["second"] == ("layers", Between(2))
    assert SearchSpace.infer(table, ["model", "layers", "second"]).conditions["second"] == ("layers", Between(2))
