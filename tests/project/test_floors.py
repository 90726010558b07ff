"""The floors of `docs/design.md`: what stands on one imports from lower ones alone, and folders stay small."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bayesmeta", "bandits", "bo")
MOST_FILES, MOST_LINES = 12, 450


def floors() -> dict[str, int]:
    """Of folders and modules at the top of a package, and of packages, by their names in Python."""
    found: dict[str, int] = {}
    section = (ROOT / "docs" / "design.md").read_text().split("## Where things are\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if match := re.match(r"\| (\d+) \|(.*)\|(.*)\|(.*)\|$", line):
            for package, cell in zip(PACKAGES, match.groups()[1:], strict=True):
                for name in re.findall(r"`(\w+)`", cell):
                    full = name if name == package else f"{package}.{name}"
                    assert full not in found, f"{full} is on two floors"
                    found[full] = int(match[1])
    return found


def modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


MODULES = modules()


def place(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, whenever that happens, but for those that only a type checker sees."""
    tree = ast.parse(path.read_text())
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in whole)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_each_folder_and_file_has_a_floor() -> None:
    assert {place(module) for module in MODULES} == set(floors())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    floor = floors()
    for other in imported(MODULES[module]):
        if other in MODULES and place(other) != place(module):
            assert floor[place(other)] < floor[place(module)], f"{module} imports {other}"


def test_no_circles_within_a_folder() -> None:
    arrows = {module: {other for other in imported(path) if other in MODULES} for module, path in MODULES.items()}
    while free := [module for module, others in arrows.items() if not others & (arrows.keys() - {module})]:
        for module in free:
            del arrows[module]
    assert not arrows, f"these import each other in circles, or what does: {sorted(arrows)}"


def test_folders_and_files_stay_small() -> None:
    others = [path for shelf in ("tests", "benchmarks") for path in (ROOT / shelf).rglob("*.py")]
    for folder in {path.parent for path in [*MODULES.values(), *others]}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"
    long = {str(path.relative_to(ROOT)) for path in MODULES.values() if len(path.read_text().splitlines()) > MOST_LINES}
    assert not long, "these have a second idea, which needs a file of its own"


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_are_shelved_as_the_package_is(package: str) -> None:
    shelves = [path for path in (ROOT / "tests" / package).rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert shelves
    for shelf in shelves:
        assert (ROOT / shelf.relative_to(ROOT / "tests")).is_dir(), f"{shelf} mirrors no folder of the package"
