"""The site has a page for every public name, translates docstrings truly, and shows no outputs of other cells."""

from importlib import import_module
from pathlib import Path

import jupytext
import nbformat
import pytest

from docs.site import notebooks
from docs.site.docstrings import to_restructured_text
from docs.site.links import broken
from docs.site.stage import MODULES, PACKAGES, main

ROOT = Path(__file__).parents[2]
CODE = """# %% [markdown]
# # A sum

# %%
1 + 1
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    main(folder)
    return folder


def test_every_public_name_has_a_page_and_is_in_the_table_of_its_package(stage: Path) -> None:
    pages = {path.name for path in (stage / "reference").iterdir()}
    for package in PACKAGES:
        overview = (stage / "reference" / f"{package}.md").read_text()
        for name in import_module(package).__all__:
            assert f"{package}.{name}.rst" in pages
            assert f"[`{name}`]({package}.{name}.rst)" in overview
    assert {f"{module}.rst" for module in MODULES} <= pages


def test_each_page_is_in_the_contents(stage: Path) -> None:
    index = (stage / "index.md").read_text()
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert f"docs/{page.stem}\n" in index


def test_links_lead_to_what_the_site_has(stage: Path) -> None:
    assert "(notebooks/03_tune_with_past_studies.ipynb)" in (stage / "index.md").read_text()
    assert "(../bayesmeta/testing/laws.py.md)" in (stage / "docs" / "extending.md").read_text()
    assert "def a_batch_equals_a_loop" in (stage / "bayesmeta" / "testing" / "laws.py.md").read_text()
    assert (stage / "docs" / "checks.png").exists()


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#there">2</a><a href="https://c.org">3</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><a href="#here">1</a><img src="d.png">')
    assert [line.split(",")[0] for line in broken(tmp_path)] == [
        "a.html links to b.html#there",
        "b.html links to d.png",
    ]


def test_docstrings_keep_their_marks() -> None:
    assert to_restructured_text("Adds $n_1$ to `df_`, for *args.") == (r"Adds :math:`n_1`\  to ``df_``\ , for \*args.")
    assert to_restructured_text("As in\n\n    f(x_1)\n\nArgs:\n    x: of `f`.") == (
        "As in\n\n::\n\n    f(x_1)\n\nArgs:\n    x: of ``f``\\ ."
    )
    assert to_restructured_text("Two:\n- one\n- two") == "Two:\n\n- one\n- two"


def test_outputs_of_other_cells_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "EXECUTED", tmp_path)
    source = tmp_path / "sum.py"
    source.write_text(CODE)
    executed = jupytext.read(source)
    executed.cells[1]["outputs"] = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(executed, tmp_path / "sum.ipynb")
    assert notebooks.with_outputs(source).cells[1].outputs[0].text == "2"
    source.write_text(CODE.replace("1 + 1", "1 + 2"))
    shown = notebooks.with_outputs(source)
    assert [cell.get("outputs") for cell in shown.cells if cell.cell_type == "code"] == [[]]
    assert "make notebooks" in shown.cells[1].source
