"""The notebooks with their outputs: `python -m docs.site.notebooks`, which `make notebooks` runs.

The `.py` files are the source. What is executed lies in `build/notebooks`, where `make docs` finds it.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbclient
import nbformat
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["NOTEBOOKS", "execute", "with_outputs"]

ROOT = Path(__file__).parents[2]
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.py")))
EXECUTED = ROOT / "build" / "notebooks"
NOT_RUN = "*This copy shows no outputs, as the notebook was not run for it; `make notebooks` runs it.*"


def execute(path: Path, folder: Path, done: Callable[[int], object] = lambda cells: None) -> nbformat.NotebookNode:
    """Run a notebook in `folder`, and keep it with its outputs for the site.

    Args:
        path: of the `.py` file.
        folder: where its cells write files.
        done: is told after each cell that runs how many cells are done.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns that it listens on this machine
        on_cell_complete=lambda cell, cell_index: done(cell_index + 1),
    )
    client.execute()
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, EXECUTED / f"{path.stem}.ipynb")
    return notebook


def with_outputs(path: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs that were kept, if they are of these very cells; else without, which it says."""
    notebook, kept = jupytext.read(path), EXECUTED / f"{path.stem}.ipynb"
    if kept.exists():
        executed = nbformat.read(kept, as_version=4)
        if [cell.source for cell in executed.cells] == [cell.source for cell in notebook.cells]:
            return executed
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(NOT_RUN))
    return notebook


def main() -> None:
    """Run all notebooks, one after another."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, tempfile.TemporaryDirectory() as folder:
        for path in NOTEBOOKS:
            bar = progress.add_task(path.stem, total=len(jupytext.read(path).cells))
            cells = execute(path, Path(folder), lambda cell, bar=bar: progress.update(bar, completed=cell)).cells
            progress.update(bar, completed=len(cells))  # text after the last code is no cell that runs
    print(*sorted(EXECUTED.glob("*.ipynb")), sep="\n")


if __name__ == "__main__":
    main()
