"""Sections of docstrings stand on lines of their own, so that readers and tools find each argument and error."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("bayesmeta", "bo", "bandits") for path in (ROOT / package).rglob("*.py"))
RUN_IN = '''
def f(x):
    """Half of x. Raises: ValueError: x is odd.

    Args: x: a number.

    Returns:
    the half.
    """
'''


def misplaced(source: str) -> Iterator[str]:
    """Heads of sections with text beside them, without an empty line before, or without indented text after."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            lines = ["", *(ast.get_docstring(node) or "").split("\n"), ""]
            for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
                if re.search(r"\b(?:Args|Returns|Raises):", line) and not (
                    re.fullmatch(r"\w+:", line) and not before and re.match(r" {4}\S", after)
                ):
                    yield line


def test_sections_that_run_into_a_line_are_found() -> None:
    assert list(misplaced(RUN_IN)) == ["Half of x. Raises: ValueError: x is odd.", "Args: x: a number.", "Returns:"]


@pytest.mark.parametrize("package", ["bayesmeta", "bo", "bandits"])
def test_sections_stand_on_lines_of_their_own(package: str) -> None:
    files = [path for path in FILES if path.relative_to(ROOT).parts[0] == package]
    assert len(files) > 10
    assert {path.name: found for path in files if (found := list(misplaced(path.read_text())))} == {}
