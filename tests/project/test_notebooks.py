"""Each notebook runs from top to bottom, in under a minute of wall time on a quiet machine."""

from pathlib import Path

import pytest

from docs.site.notebooks import NOTEBOOKS, execute


@pytest.mark.slow
# Jupyter's own client warns of its transitions: paths of configuration, and an event loop of its own
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_core", "ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:zmq")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND")  # its kernel would inherit it, and draw nothing into the notebook
    notebook = execute(path, tmp_path)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
