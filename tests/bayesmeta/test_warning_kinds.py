"""Own classes of warnings: each can be filtered alone, and names the line of the user."""

import ast
import warnings
from pathlib import Path

import pytest
import torch

import bandits
import bayesmeta as bm
import bo
from bayesmeta import Data
from bayesmeta.warning_kinds import BayesmetaWarning, LimitWarning, NotFusedWarning, PlacementWarning

ROOT = Path(__file__).parents[2]
KINDS = [
    LimitWarning,
    NotFusedWarning,
    PlacementWarning,
    bandits.FewSamplesWarning,
    bandits.UnusableRowsWarning,
    bo.MixedColumnWarning,
    bo.NoSuggestionWarning,
    bo.UnlikePastWarning,
]


def test_every_kind_is_one_of_ours() -> None:
    assert all(issubclass(kind, BayesmetaWarning) for kind in KINDS)
    assert issubclass(BayesmetaWarning, UserWarning)
    assert bm.LimitWarning is LimitWarning


@pytest.mark.parametrize("package", ["bayesmeta", "bandits", "bo"])
def test_nothing_warns_but_by_an_own_class(package: str) -> None:
    """`warnings.warn` is called in one place, which takes a class."""
    for path in sorted((ROOT / package).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if any(ast.unparse(call.func) == "warnings.warn" for call in calls):
            assert path.name == "warning_kinds.py", f"{path} should call bayesmeta.warning_kinds.warn"


def _same_tasks() -> Data:
    return Data.of(None, torch.tensor([[0.0, 1.0]] * 4, dtype=torch.float64))


def test_one_kind_can_be_filtered() -> None:
    tasks = _same_tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", LimitWarning)
        bm.BetaBernoulli.initial(tasks).fit(tasks, hyperprior_weight=0.0)


def test_a_warning_names_the_line_that_called() -> None:
    tasks = _same_tasks()
    with pytest.warns(BayesmetaWarning) as told:
        bm.BetaBernoulli.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert "bayesmeta/" not in told[0].filename.replace(str(ROOT), "")
