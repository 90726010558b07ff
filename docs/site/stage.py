"""Lay out the pages of the site: Markdown as it is, a page of the reference for each public name, the notebooks.

    python -m docs.site.stage FOLDER

Links between pages are kept, as the layout of the repository is. A file that a page links to and that is no page is
shown as a page of code. A link to nothing is an error.
"""

import inspect
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import nbformat

from docs.site.notebooks import NOTEBOOKS, with_outputs

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/README.md", "bayesmeta/datasets/README.md")
PACKAGES = ("bayesmeta", "bo", "bandits")
# modules whose names are public under the module's own name
MODULES = (
    "bayesmeta.protocol",
    "bayesmeta.fields",
    "bayesmeta.random",
    "bayesmeta.hyperparameters",
    "bayesmeta.checks.calibration",
    "bayesmeta.checks.predictive_checks",
    "bayesmeta.checks.comparison",
    "bayesmeta.checks.plots",
    "bayesmeta.testing",
    "bayesmeta.datasets",
    "bayesmeta.diffusion",
    "bayesmeta.mcmc",
    "bayesmeta.mcmc.exactness",
    "bayesmeta.neural_processes",
    "bo.testing",
    "bandits.mab",
    "bandits.balans",
    "bandits.testing",
)
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)(#[^)\s]*)?\)")


def main(stage: Path) -> None:
    """Write all pages to a folder, which is emptied first."""
    shutil.rmtree(stage, ignore_errors=True)
    pages = [ROOT / page for page in PAGES] + sorted((ROOT / "docs").glob("*.md"))
    shown = {page: page.relative_to(ROOT) for page in pages}
    shown[ROOT / "README.md"] = Path("index.md")
    shown |= {path: path.relative_to(ROOT).with_suffix(".ipynb") for path in NOTEBOOKS}
    for page in pages:
        text = _linked(page, shown, stage)
        if page == ROOT / "README.md":
            text += (Path(__file__).parent / "contents.md").read_text()
        _write(stage / shown[page], text)
    for path in NOTEBOOKS:
        _write(stage / shown[path], nbformat.writes(with_outputs(path)))
    for name, text in reference():
        _write(stage / "reference" / name, text)


def reference() -> Iterator[tuple[str, str]]:
    """File and text of each page of the reference."""
    public: list[object] = []
    for package in map(import_module, PACKAGES):
        names = {name: getattr(package, name) for name in package.__all__}
        public += names.values()
        yield f"{package.__name__}.md", _overview(package, names)
        for name, value in names.items():
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            yield _page(package.__name__, f"{package.__name__}.{name}", f".. {kind}:: {package.__name__}.{name}")
    for name in MODULES:
        module = import_module(name)
        has_page = [each for each in module.__all__ if any(getattr(module, each) is other for other in public)]
        exclude = f"\n   :exclude-members: {', '.join(has_page)}" if has_page else ""
        yield _page(name.partition(".")[0], name, f".. automodule:: {name}{exclude}")


def _page(package: str, name: str, directive: str) -> tuple[str, str]:
    """A page of one name; with hundreds of them in the menu each page would take a third of a second to write."""
    return f"{name}.rst", f":orphan:\n\n{name}\n{'=' * len(name)}\n\nPart of :doc:`{package}`.\n\n{directive}\n"


def _overview(package: ModuleType, names: dict[str, object]) -> str:
    """All names of a package, by the folder that they live in, each with the first line of its docstring."""
    folders: dict[str, list[str]] = {}
    for name, value in names.items():
        folders.setdefault(".".join(str(value.__module__).split(".")[:2]), []).append(name)
    parts = [f"# {package.__name__}\n\n{inspect.getdoc(package)}"]
    for folder, members in sorted(folders.items()):
        rows = {name: (f"{package.__name__}.{name}", names[name]) for name in members}
        parts.append(_table(_first_line(import_module(folder)), rows))
    own = {name: (name, import_module(name)) for name in MODULES if name.startswith(f"{package.__name__}.")}
    return "\n\n".join([*parts, _table("Modules with names of their own", own)] if own else parts) + "\n"


def _table(title: str, rows: dict[str, tuple[str, object]]) -> str:
    lines = [f"| [`{name}`]({page}.rst) | {_first_line(value)} |" for name, (page, value) in rows.items()]
    return "\n".join([f"## {title.rstrip('.')}", "", "| Name | What it is |", "| --- | --- |", *lines])


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0].replace("|", "\\|")


def _linked(page: Path, shown: dict[Path, Path], stage: Path) -> str:
    """The text of a page, whose links lead to what the site shows of each file."""
    here = shown[page].parent

    def leads_to(match: re.Match[str]) -> str:
        file, heading = match[1], match[2] or ""
        target = (page.parent / file).resolve()
        target = target / "README.md" if target.is_dir() else target
        if not target.is_file():
            sys.exit(f"{page.relative_to(ROOT)} links to {file}, which does not exist")
        return f"]({os.path.relpath(shown.get(target) or _as_it_is(target, stage), here)}{heading})"

    parts = FENCED.split(page.read_text())
    return "".join(part if part.startswith("```") else LINK.sub(leads_to, part) for part in parts)


def _as_it_is(file: Path, stage: Path) -> Path:
    """A copy of a picture, or a page of code."""
    place = file.relative_to(ROOT)
    if file.suffix == ".png":
        (stage / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, stage / place)
        return place
    language = {".py": "python", ".yml": "yaml"}.get(file.suffix, "text")
    place = place.with_name(f"{place.name}.md")
    _write(
        stage / place,
        f"---\norphan: true\n---\n\n# {file.relative_to(ROOT)}\n\n````{language}\n{file.read_text()}````\n",
    )
    return place


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
