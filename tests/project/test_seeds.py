"""Every seed of the tests is shifted by SEED, equal shifts mean equal numbers, and no test seeds in another way."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.drawing import draws
from tests.seeds import SHIFT, seed, shifted

# a seed that is given is `shifted(...)`, a parameter called `seed`, or a constant that was shifted
TAKEN = [
    r"manual_seed\((?!shifted\()",
    r"(?:default_rng|RandomState|SeedSequence|random\.Random)\((?!.*(?:shifted|SEED))",
    r"\b(?:seed|random_state)=(?!shifted\(|seed\b|SEED\b|True\b)",
    r"[\"']seed[\"']: (?!shifted\()",
    r"--seed\b(?!.*shifted)",
    r"derandomize|random\.seed\(|set_rng_seed|@seed",
]
# their seed has a default, and tests give one
WITH_DEFAULT = {"FromPrior", "Wheel", "linear_contextual", "fitted_rewards", "fit_rgpe"}
TESTS = Path(__file__).parents[1]
ALLOWED = {"seeds.py", "conftest.py", "test_seeds.py"}
A_FILE = """
import numpy as np
import torch
from hypothesis import given, settings, strategies
import bandits
from bayesmeta import BetaBernoulli
from tests.seeds import seed, shifted

@settings(max_examples=20)
@given(strategies.floats(), strategies.text())
def test_examples(number, text):
    print("drawn", repr(number), repr(text))

def test_seeds():
    print("drawn", torch.rand(3, generator=seed(1)).tolist(), np.random.default_rng(shifted(1)).random())

def test_without_a_seed():
    policy = bandits.ThompsonSampling(BetaBernoulli(torch.ones(()), torch.ones(())), range(1000))
    print("drawn", np.random.default_rng().random(), np.random.RandomState().random(), policy.choose().arm)

def test_global_streams():
    print("drawn", np.random.random(), __import__("random").random())

def test_fails():
    raise AssertionError
"""


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_seeds_on_its_own(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [f"{path.name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if re.search("|".join(TAKEN), line)]
    found += [f"{path.name}:{call.lineno}: the default" for call in _calls(path) if "seed" not in _keywords(call)]
    assert path.name in ALLOWED or not found, "take seeds from tests/seeds.py: " + "; ".join(found)


def test_numbers_are_shifted() -> None:
    expected = torch.Generator().manual_seed(3 + SHIFT)
    assert shifted(3) == 3 + SHIFT
    assert torch.equal(torch.rand(3, generator=seed(3)), torch.rand(3, generator=expected))


def test_the_marker_follows_names_to_a_seed(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("draws") is None
    assert draws("tests.bayesmeta.testing.test_laws", "test_law")  # through hypothesis
    assert draws("tests.project.test_seeds", "test_numbers_are_shifted")
    assert draws("tests.bo.priors.test_rgpe", "past")  # a module
    assert draws("tests.families", "FAMILIES")
    assert not draws("tests.project.test_seeds", "TAKEN")
    assert not draws("tests.project.test_imports", "test_arrows_point_one_way")


@pytest.mark.slow
def test_equal_shifts_mean_equal_numbers_and_a_failure_names_its_shift(tmp_path: Path) -> None:
    path = tmp_path / "test_written.py"
    path.write_text(A_FILE)
    first, again, other = (_output(path, shift) for shift in ("5", "5", "6"))
    numbers = _drawn(first)
    assert len(numbers) >= 23
    assert numbers == _drawn(again)
    assert all(a != b for a, b in zip(numbers[-3:], _drawn(other)[-3:], strict=True))
    assert numbers[:-3] != _drawn(other)[:-3]
    assert "seed shift 5" in first.partition("collected")[0]
    assert "seed shift 5" in first.partition("FAILURES")[2]
    assert "SEED=5 " in first.partition("FAILURES")[2]


def _calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in WITH_DEFAULT:
            yield node


def _keywords(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


def _output(path: Path, shift: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-s", str(path)]
    environment = os.environ | {"SEED": shift, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=environment, cwd=path.parent, capture_output=True, text=True).stdout


def _drawn(output: str) -> list[str]:
    return [line for line in output.splitlines() if "drawn " in line]
