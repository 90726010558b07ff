"""Which tests draw: those from whose source one gets to `seed`, `shifted` or hypothesis by following names.

A test draws where it, a fixture that it asks for, or a function or constant of `tests` that it names does. The source
is read and not run, so the marker `draws` is there before any test runs, and `-m draws` can select by it.
"""

import ast
from functools import cache
from pathlib import Path

__all__ = ["draws"]

Name = tuple[str, str]  # a module and a name at its top level, or "*" for all that it has

HERE = Path(__file__).parent
SOURCES = {("tests.seeds", name) for name in ("seed", "shifted")} | {("hypothesis", "given")}
SOURCES |= {("bayesmeta.testing", name) for name in ("LAWS", "laws_of")}


@cache
def draws(module: str, name: str) -> bool:
    """Whether `name` of `module` leads to a source of random numbers."""
    seen, waiting = {(module, name)}, [(module, name)]
    while waiting:
        reached = _made_of(*waiting.pop())
        if reached & SOURCES:
            return True
        waiting += reached - seen
        seen |= reached
    return False


def _made_of(module: str, name: str) -> set[Name]:
    if not _is_ours(module):  # others' code draws from what it is given
        return set()
    names = _names(module)
    return set().union(*names.values()) if name == "*" else names.get(name, set())


@cache
def _names(module: str) -> dict[str, set[Name]]:
    """What each name at the top level of a module is made of."""
    found: dict[str, set[Name]] = {}
    for_all: set[Name] = set()
    for statement in ast.parse(_path(module).read_text()).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                of_module = f"{statement.module}.{alias.name}"
                source = (of_module, "*") if _is_ours(of_module) else (statement.module, alias.name)
                found[alias.asname or alias.name] = {source}
            continue
        used = {(module, name) for name in _used(statement)}
        for name in _defined(statement):
            found[name] = found.get(name, set()) | used
        if isinstance(statement, ast.FunctionDef) and any("autouse" in ast.dump(d) for d in statement.decorator_list):
            for_all |= used
    return {name: used | for_all if name.lower().startswith("test") else used for name, used in found.items()}


def _is_ours(module: str) -> bool:
    return module.startswith("tests.") and _path(module).exists()


def _path(module: str) -> Path:
    return HERE / f"{module.removeprefix('tests.').replace('.', '/')}.py"


def _used(statement: ast.stmt) -> set[str]:
    """Names that are read, and arguments, which may be fixtures."""
    return {
        n.id if isinstance(n, ast.Name) else n.arg for n in ast.walk(statement) if isinstance(n, ast.Name | ast.arg)
    }


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
