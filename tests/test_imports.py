"""Arrows point one way: bandits and bo import bayesmeta, which imports neither."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {"bayesmeta": {"bandits", "bo"}, "bandits": {"bo"}, "bo": {"bandits"}}
NOT_LIBRARY = {"benchmarks", "notebooks", "tests"}


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {"." if node.level else (node.module or "").partition(".")[0]}
    return set()


def imports(tree: ast.Module, *, inside_functions: bool) -> set[str]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    found = (imported(node) for node in ast.walk(tree) if inside_functions or id(node) not in inner)
    return set().union(*found)


@pytest.mark.parametrize("package", ABOVE)
def test_arrows_point_one_way(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        # the commands of bayesmeta.cli drive the other packages, and import them when they run
        commands = path == ROOT / "bayesmeta" / "cli.py"
        found = imports(ast.parse(path.read_text()), inside_functions=not commands)
        assert not found & ABOVE[package], f"{path} imports {found & ABOVE[package]}"
        assert not found & NOT_LIBRARY, f"{path} imports {found & NOT_LIBRARY}"
        assert "." not in found, f"{path} imports by a relative name"
