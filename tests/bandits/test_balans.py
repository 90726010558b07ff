"""Balans searches with our policy: on a program with binaries and integers, and on one for which it drops operators."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bandits
from bayesmeta import NormalInverseGamma

pytest.importorskip("balans")
pyscipopt = pytest.importorskip("pyscipopt")

from alns.stop import MaxIterations  # noqa: E402 - only where it is installed
from balans.solver import DestroyOperators  # noqa: E402

from bandits.balans import Balans, PolicySelector, default_policy  # noqa: E402
from tests.seeds import shifted  # noqa: E402

ITERATIONS = 12
OPERATORS = [
    DestroyOperators.Mutation_25,
    DestroyOperators.Local_Branching_10,
    DestroyOperators.Proximity_05,
    DestroyOperators.Rins_25,
    DestroyOperators.Dins,
]


def program(path: Path, *, binary: bool) -> str:
    """A knapsack of several dimensions: of things that are taken or not, or of whole numbers of them."""
    rng = np.random.default_rng(shifted(0))
    model = pyscipopt.Model()
    model.hideOutput()
    value, weight = rng.integers(10, 60, 30), rng.integers(5, 40, (4, 30))
    kind = {"vtype": "B"} if binary else {"vtype": "I", "lb": 0, "ub": 6}
    items = [model.addVar(f"x{i}", **kind) for i in range(30)]
    for row in weight:
        model.addCons(pyscipopt.quicksum(int(w) * x for w, x in zip(row, items, strict=True)) <= int(row.sum() / 3))
    model.setObjective(pyscipopt.quicksum(-int(v) * x for v, x in zip(value, items, strict=True)), "minimize")
    model.writeProblem(str(path), verbose=False)
    return str(path)


def search(**options: Any) -> Balans:
    return Balans(destroy_ops=OPERATORS, stop=MaxIterations(ITERATIONS), seed=shifted(7), mip_solver="scip", **options)


@pytest.mark.parametrize(
    ("binary", "dropped"),
    [(True, {"dins"}), (False, {"local_branching_10", "proximity_05"})],
    ids=["binary", "integer"],
)
def test_a_policy_drives_the_search_and_survives_dropped_operators(
    tmp_path: Path, binary: bool, dropped: set[str]
) -> None:
    made: list[bandits.Policy] = []

    def policy(arms: Any) -> bandits.Policy:
        made.append(default_policy(arms))
        return made[-1]

    balans = search(policy=policy)
    result = balans.solve(program(tmp_path / "program.mps", binary=binary))
    assert result.best_state.objective() <= balans.initial_obj_val
    names = {operator.__name__ for operator in OPERATORS}
    assert set(balans.policy.arms) == names - dropped
    assert balans.policy is made[-1]
    assert isinstance(balans.selector, PolicySelector)
    assert int(balans.policy.pulls.sum()) == ITERATIONS == len(balans.rows)
    assert {name for name, _ in balans.rows} <= names - dropped
    assert {score for _, score in balans.rows} <= {8.0, 4.0, 2.0, 1.0}


def test_a_learned_prior_prefers_the_operators_that_it_knows_to_work(tmp_path: Path) -> None:
    good, (one, spread) = "mutation_25", (torch.tensor(500.0).double(), torch.tensor(3.0).double())

    def policy(arms: Any) -> bandits.Policy:
        loc = torch.tensor([8.0 if arm == good else 1.0 for arm in arms]).double()
        each = [value.expand(len(arms)) for value in (one, spread, spread)]
        return bandits.ThompsonSampling(NormalInverseGamma(loc, *each), arms, seed=shifted(0))

    balans = search(policy=policy)
    balans.solve(program(tmp_path / "program.mps", binary=True))
    assert [name for name, _ in balans.rows[:5]] == [good] * 5


def test_selectors_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="names must be of 2 pairs of operators; got 1"):
        PolicySelector(default_policy(["a"]), ["a"], 2, 1)
    with pytest.raises(ValueError, match="the policy must have the arms"):
        PolicySelector(default_policy(["a", "c"]), ["a", "b"], 2, 1)
    with pytest.raises(TypeError, match="the policy is the selector"):
        search(selector=object())


def test_rewards_of_operators_that_the_policy_did_not_choose_are_learned_from() -> None:
    selector = PolicySelector(default_policy(["a", "b"]), ["a", "b"], 2, 1)
    selector.mab.partial_fit(["1_0"], [4.0])
    assert selector.policy.pulls.tolist() == [0, 1]
    assert selector.rows == [("b", 4.0)]
