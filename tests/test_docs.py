"""The pages of docs: their examples run as they stand, one after another, and what they name and link to exists."""

import contextlib
import io
import re
import typing
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pytest

import bayesmeta
from bayesmeta.protocol import Predictive

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
ELSEWHERE = {"extending.md": "test_extending.py"}  # pages whose examples another file runs
LINKING = [ROOT / "README.md", *PAGES]


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


RUN_HERE = [page for page in PAGES if examples(page) and page.name not in ELSEWHERE]


@dataclass(frozen=True)
class Run:
    """What a page's examples left: names, what they printed, and the folder that they ran in."""

    names: dict[str, typing.Any]
    printed: str
    folder: Path


@pytest.fixture(scope="module", params=RUN_HERE, ids=lambda page: page.stem)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Each page once, for all tests of it."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    page, names, printed = request.param, {}, io.StringIO()
    folder = tmp_path_factory.mktemp(page.stem)
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for example in examples(page):
            exec(compile(example, page.name, "exec"), names)
    plt.close("all")
    return Run(names, printed.getvalue(), folder)


def only(*names: str) -> pytest.MarkDecorator:
    """Of `run`, these pages alone."""
    pages = [page for page in RUN_HERE if page.stem in names]
    assert len(pages) == len(names)
    return pytest.mark.parametrize("run", pages, ids=names, indirect=True, scope="module")


def test_the_examples_run_and_print_what_they_find(run: Run) -> None:
    assert run.printed


@only("checks")
def test_the_checks_prefer_the_learned_prior_and_draw_a_figure(run: Run) -> None:
    assert "learned: -13." in run.printed
    assert run.names["ranking"][0].name == "learned"
    assert (run.folder / "checks.png").stat().st_size > 10_000


@only("choosing")
def test_evidence_chooses_the_family_of_the_truth_and_averaging_covers_more_after_few_tasks(run: Run) -> None:
    best, second = run.names["ranking"]
    assert best.name == "normal logarithms"
    assert isinstance(run.names["prior"], bayesmeta.NormalInverseGamma)
    assert second.difference.value < -5.0 * second.difference.standard_error
    probable, averaged = (sum(shares) / len(shares) for shares in run.names["covered"].values())
    assert probable < 0.85 < averaged < 0.95


@pytest.mark.parametrize("page", ELSEWHERE)
def test_pages_that_run_elsewhere_are_named_there(page: str) -> None:
    assert f'"docs" / "{page}"' in (ROOT / "tests" / ELSEWHERE[page]).read_text()


def test_every_check_of_the_page_exists() -> None:
    from bayesmeta import calibration, comparison, plots, predictive_checks

    page = (ROOT / "docs" / "checks.md").read_text()
    table = [row.split("|")[2:4] for row in page.splitlines() if row.startswith("| ") and "`" in row]
    named = set(re.findall(r"`(\w+)`", " ".join(cell for row in table for cell in row)))
    assert len(named) >= 15
    exported = {name for module in (calibration, comparison, plots, predictive_checks) for name in module.__all__}
    assert named <= exported


def test_the_page_on_choosing_names_every_family() -> None:
    promised = {name for name in dir(Predictive) if not name.startswith("_")}
    families = {
        name
        for name in bayesmeta.__all__
        if isinstance(each := getattr(bayesmeta, name), type) and promised <= set(dir(each))
    }
    assert {"BetaBernoulli", "GaussianProcess", "Mixture"} <= families
    named = set(re.findall(r"[A-Za-z]\w+", (ROOT / "docs" / "choosing.md").read_text()))
    assert families <= named, f"docs/choosing.md does not name {sorted(families - named)}"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_point_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in targets:
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        assert file.is_relative_to(ROOT), f"{page.name} links to {target}, outside the repository"
        assert not heading or heading in headings(file), f"{page.name} links to {target}: {path} has no such heading"


def headings(page: Path) -> set[str]:
    """As GitHub names them in links."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
