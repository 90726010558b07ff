"""Arrows point one way: bandits and bo import bayesmeta, which imports neither."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import bandits
import bayesmeta
import bayesmeta.datasets
import bo

ROOT = Path(__file__).parents[2]
ABOVE = {"bayesmeta": {"bandits", "bo"}, "bandits": {"bo"}, "bo": {"bandits"}}
NOT_LIBRARY = {"benchmarks", "docs", "notebooks", "tests"}


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {"." if node.level else (node.module or "").partition(".")[0]}
    return set()


def runs_at_import(node: ast.AST) -> bool:
    """Not the body of a function, nor of `if TYPE_CHECKING:`."""
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return not is_function and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def imports(tree: ast.Module, *, whenever: bool) -> set[str]:
    """What a file imports, `whenever` that happens or only when the file is itself imported."""
    later = [node for node in ast.walk(tree) if not runs_at_import(node)]
    skipped = set() if whenever else {id(inner) for node in later for inner in ast.walk(node)}
    return set().union(*(imported(node) for node in ast.walk(tree) if id(node) not in skipped))


@pytest.mark.parametrize("package", ABOVE)
def test_arrows_point_one_way(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        found = imports(ast.parse(path.read_text()), whenever=True)
        assert not found & ABOVE[package], f"{path} imports {found & ABOVE[package]}"
        assert not found & NOT_LIBRARY, f"{path} imports {found & NOT_LIBRARY}"
        assert "." not in found, f"{path} imports by a relative name"


@pytest.mark.parametrize("package", [bayesmeta, bandits, bo, bayesmeta.datasets], ids=lambda package: package.__name__)
def test_a_package_shows_what_is_public(package: ModuleType) -> None:
    for name in package.__all__:
        getattr(package, name)
    shown = set(dir(package))
    assert {name for name in shown if not name.startswith("__")} == set(package.__all__)
    assert {name for name in vars(package) if name.startswith("__")} <= shown
