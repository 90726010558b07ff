"""A study's parameters seen from the past's space: what both have lies where the past had it, the rest outside."""

import math
from typing import Any

import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bo import SearchSpace
from bo.space.study_space import View, applying_conditions, differences, shares, to_numbers
from tests.families import seed

KNOWN = SearchSpace(
    {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "depth": IntDistribution(1, 12),
        "kind": CategoricalDistribution(("linear", "tree", "forest")),
        "flag": CategoricalDistribution((False, True)),
        "fixed": IntDistribution(7, 7),
    }
)
STUDY: dict[str, BaseDistribution] = {
    "kind": CategoricalDistribution(("forest", "boosted", "linear", "neural")),
    "depth": FloatDistribution(2.0, 8.0),
    "rate": FloatDistribution(1e-3, 10.0, log=True),
    "new": FloatDistribution(0.0, 1.0),
}
NOTHING = torch.full((5,), torch.nan, dtype=torch.float64)


def view(distributions: dict[str, BaseDistribution], fixed: torch.Tensor = NOTHING) -> View:
    return View(KNOWN, SearchSpace({name: d for name, d in distributions.items() if name in KNOWN.names}), fixed)


@pytest.mark.parametrize(
    ("name", "distribution", "expected"),
    [
        ("rate", FloatDistribution(0.0, 100.0), True),
        ("depth", FloatDistribution(0.5, 0.7), True),
        ("rate", IntDistribution(1, 3), True),
        ("rate", CategoricalDistribution((0.1, 0.2)), False),
        ("kind", CategoricalDistribution(("other",)), True),
        ("kind", IntDistribution(0, 2), False),
        ("fixed", IntDistribution(1, 9), False),
        ("new", FloatDistribution(0.0, 1.0), False),
    ],
)
def test_what_is_shared(name: str, distribution: BaseDistribution, expected: bool) -> None:
    assert shares(KNOWN, name, distribution) is expected


def test_configurations_in_terms_of_the_past() -> None:
    params: dict[str, Any] = {"kind": "neural", "depth": 2.5, "new": 0.5}
    assert to_numbers(KNOWN, [(params, STUDY)]).tolist() == [
        pytest.approx([math.nan, 2.5, 4.0, math.nan, math.nan], nan_ok=True)
    ]
    assert to_numbers(KNOWN, []).shape == (0, 5)


def test_points_of_the_study_lie_where_the_past_had_them() -> None:
    seen = view({**STUDY, "depth": IntDistribution(2, 8), "flag": CategoricalDistribution((True, False))})
    x = seen.space.sobol(64, generator=seed(0))
    both = [params["kind"] in ("linear", "forest") and params["rate"] <= 1 for params in seen.space.from_unit(x)]
    assert sum(both) > 10
    torch.testing.assert_close(seen.to_known(x[both]), KNOWN.to_unit(seen.space.from_unit(x[both])), rtol=0, atol=1e-9)


def test_numbers_that_the_past_lacks_lie_outside_its_cube() -> None:
    seen = view({"rate": FloatDistribution(1e-9, 1e9, log=True), "depth": FloatDistribution(0.0, 12.0)})
    there = seen.to_known(seen.space.to_unit([{"rate": rate, "depth": 2.75} for rate in (1e-9, 1e-6, 1e9)]))
    further = [-1.0 - math.log(1.25), -0.5, 2.0 + math.log(2.25)]  # from a width on by the logarithm
    assert there[:, KNOWN.slices()["rate"].start].tolist() == pytest.approx(further)
    assert there[:, KNOWN.slices()["depth"].start].tolist() == pytest.approx([2.25 / 12] * 3)


def test_choices_that_the_past_lacks_lie_apart() -> None:
    seen = view({"kind": STUDY["kind"]})
    choices = [{"kind": kind} for kind in ("linear", "forest", "boosted", "neural")]
    there = seen.to_known(seen.space.to_unit(choices))[:, KNOWN.slices()["kind"]]
    assert there.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    flags = view({"flag": CategoricalDistribution((False, None, True))})
    there = flags.to_known(flags.space.to_unit([{"flag": choice} for choice in (False, True, None)]))
    assert there[:, KNOWN.slices()["flag"].start].tolist() == [0.0, 1.0, 2.0]


def test_a_log_scale_of_the_past_takes_any_number() -> None:
    space = view({"rate": FloatDistribution(-1.0, 1.0)})
    there = space.to_known(space.space.to_unit([{"rate": r} for r in (-1.0, 0.0, 1e-4, 1.0)]))
    column = there[:, KNOWN.slices()["rate"].start]
    assert column[2:].tolist() == pytest.approx([0.0, 1.0], abs=1e-9)
    assert column[0] < column[1] - 1e-6 < -1.0


FAR: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(-1e3, 1e12),
    "depth": IntDistribution(10, 1000),
    "kind": CategoricalDistribution(("forest", *map(str, range(9)), "linear")),
    "flag": CategoricalDistribution((True, None, 1.5, False)),
}


@pytest.mark.parametrize("name", FAR)
def test_what_a_study_tells_apart_is_told_apart(name: str) -> None:
    """Also far beyond the range of the past, and among many choices that it lacks."""
    seen = view({name: FAR[name]})
    x = seen.space.quantile(torch.linspace(0.0, 1.0, 60, dtype=torch.float64)[:, None]).unique(dim=0)
    for there in (seen.to_known(x), seen.to_own(x)):
        assert there.isfinite().all()
        assert torch.nn.functional.pdist(there).min() > 1e-5
    own = seen.to_own(x)
    assert own.min() >= 0.0
    assert own.max() <= 1.0
    torch.testing.assert_close(seen.from_own(own), x, rtol=0, atol=1e-9)


def test_rows_of_other_ranges_have_places_in_the_study_too() -> None:
    fixed = NOTHING.clone()
    fixed[3] = 1.0
    seen = view({"rate": FloatDistribution(1e-2, 10.0, log=True), "kind": STUDY["kind"]}, fixed)
    numbers = torch.tensor([[1e-4, 3.0, 1.0, 0.0, 7.0], [10.0, 14.0, 4.0, 1.0, 7.0], [0.1, math.nan, 3.0, 1.0, 7.0]])
    there = seen.to_own_from(numbers.double())
    rate, kind, flag = (seen.own.slices()[name] for name in ("rate", "kind", "flag"))
    assert there[:, rate].flatten().tolist() == pytest.approx([-2.0 / 3, 1.0, 1.0 / 3])
    assert there[1:, kind].tolist() == [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    assert (there[0, kind] <= 0).all(), "a tree, which the study lacks"
    assert there[:, flag].flatten().tolist() == [0.0, 1.0, 1.0]


def test_what_a_study_lacks_is_missing_and_what_is_set_is_fixed() -> None:
    fixed = NOTHING.clone()
    fixed[1], fixed[2] = 5.0, 0.0
    there = view({"rate": STUDY["rate"]}, fixed).to_known(torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(there, KNOWN.to_unit([{"rate": 1e-3, "depth": 5, "kind": "linear"}]))


def test_the_past_space_itself_is_seen_as_it_is() -> None:
    x = KNOWN.sobol(8, generator=seed(0))
    itself = View(KNOWN, KNOWN, NOTHING)
    assert torch.equal(itself.to_known(x), x)
    assert torch.equal(itself.from_points(x), x)
    again = View(KNOWN, SearchSpace(dict(reversed(KNOWN.distributions.items()))), NOTHING)
    there = again.to_known(again.space.to_unit(KNOWN.from_unit(x)))
    torch.testing.assert_close(there, x, rtol=0, atol=1e-9)


def test_configurations_come_to_the_nearest_point_of_the_study() -> None:
    seen = view(STUDY)
    numbers = torch.tensor([[1e-4, 3.0, 2.0, 0.0, 0.0], [0.1, 12.0, 3.0, 0.0, 0.0], [0.1, math.nan, 1.0, 0.0, 0.0]])
    found = seen.space.from_unit(seen.from_known(numbers.double()))
    assert found[0] == {"kind": "forest", "depth": pytest.approx(3.0), "rate": pytest.approx(1e-3)}
    assert found[1] == {"kind": "boosted", "depth": pytest.approx(8.0), "rate": pytest.approx(0.1)}
    assert found[2]["depth"] == pytest.approx(5.0)  # in the middle


def test_conditions_apply_where_both_parameters_are_there() -> None:
    known = SearchSpace(KNOWN.distributions, {"depth": ("kind", ("tree", "forest")), "rate": ("flag", (True,))})
    assert applying_conditions(known, STUDY) == {"depth": ("kind", ("forest", "boosted", "neural"))}


def test_differences_are_named() -> None:
    same = {name: KNOWN.distributions[name] for name in ("rate", "depth", "kind", "flag")}
    assert differences(KNOWN, {}, same) == ([], [], [])
    new, missing, other = differences(KNOWN, {}, {**STUDY, "constant": IntDistribution(1, 1)})
    assert (new, missing, other) == (["new"], ["flag"], ["kind", "depth", "rate"])
    conditional = SearchSpace(KNOWN.distributions, {"flag": ("kind", ("tree",))})
    assert differences(conditional, {"kind": "forest"}, STUDY)[1] == []
    assert differences(conditional, {"kind": "tree"}, STUDY)[1] == ["flag"]
