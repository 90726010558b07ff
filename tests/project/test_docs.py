"""The examples of every page run as they stand, one after another, and what pages name and link to is there."""

import re
from pathlib import Path
from typing import Any

import pytest

import bayesmeta

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BANDITS, BOTORCH, CHECKS, CHOOSING, LOGGING, MIXED, OPTUNA = (
    ROOT / "docs" / f"{name}.md"
    for name in ("bandits", "botorch", "checks", "choosing", "logging", "mixed-models", "optuna")
)
LINKING = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
ALL_PAGES = [
    *LINKING,
    *(ROOT / name for name in ("CHANGELOG.md", "benchmarks/results/README.md", "bayesmeta/datasets/README.md")),
    ROOT / "tests" / "data" / "README.md",
]
# that one makes a module and an installed package of its examples, which test_extending.py does
WITH_EXAMPLES = [page for page in PAGES if "```python\n" in page.read_text() and page.name != "extending.md"]


def examples_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def run(page: Path) -> dict[str, Any]:
    """The names that the examples of a page leave behind.

    Where nothing is asked of what they find, networks learn for a few steps, and hundreds of tasks, draws and particles
    are tens.
    """
    names: dict[str, Any] = {}
    for example in examples_of(page):
        few = re.sub(r"\b([1-9])00\b", r"\g<1>0", re.sub(r"num_steps=\d+", "num_steps=12", example))
        exec(compile(example if page in FINDINGS else few, page.name, "exec"), names)
    return names


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, and to leave figures in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pages_with_examples_are_found() -> None:
    assert {page.name for page in WITH_EXAMPLES} >= {"botorch.md", "checks.md", "choosing.md"}


def checks_prefer_the_learned_prior(names: dict[str, Any], printed: str, folder: Path) -> None:
    assert len(examples_of(CHECKS)) == 2
    assert "learned: -13." in printed
    assert (folder / "checks.png").stat().st_size > 10_000
    assert names["ranking"][0].name == "learned"


def evidence_chooses_the_truth_and_averages_cover(names: dict[str, Any], printed: str, folder: Path) -> None:
    best, second = names["ranking"]
    assert best.name == "normal logarithms"
    assert isinstance(names["prior"], bayesmeta.NormalInverseGamma)
    assert second.difference.value < -5.0 * second.difference.standard_error
    probable, averaged = (sum(shares) / len(shares) for shares in names["covered"].values())
    assert probable < 0.85 < averaged < 0.95


def candidates_are_better_than_what_was_tried(names: dict[str, Any], printed: str, folder: Path) -> None:
    assert len(examples_of(BOTORCH)) == 4
    yields, peak = names["yields"], names["peaks"][8]
    assert yields(names["candidate"], peak) > names["y"].max()
    assert len(names["batch"].unique(dim=0)) == 3
    assert (names["batch"] - names["candidate"]).norm(dim=-1).min() > 0.01
    for found in (names["to_learn"], names["about_the_best"]):
        assert ((found >= 0) & (found <= 1)).all()
    assert all(
        1 <= plan["hours"] <= 24 and 20 <= plan["temperature"] <= 80
        for plan in names["space"].from_unit(names["plans"])
    )


def the_past_makes_few_trials_do(names: dict[str, Any], printed: str, folder: Path) -> None:
    assert len(names["study"].trials) == 5
    assert names["study"].best_value < 0.02  # the median of random search is .2
    assert names["informed"].best_value < 0.05
    assert set(names["sampler"].prior.space.conditions) == {"penalty", "depth", "rate"}


def the_past_makes_policies_better(names: dict[str, Any], printed: str, folder: Path) -> None:
    runs = names["runs"]
    assert runs["learned prior"].total.mean() < 0.7 * runs["vague prior"].total.mean() < runs["UCB1"].total.mean()
    assert (folder / "regret.png").stat().st_size > 10_000
    assert names["policy"].probabilities().probability[0, 2] > 0.9
    # rewards that the past does not expect take away what it has to say
    assert float(names["careful"].posterior(["red"]).weights[0, 0]) < 0.01


def the_log_tells_what_is_true(names: dict[str, Any], printed: str, folder: Path) -> None:
    assert (folder / "log.parquet").stat().st_size > 1000
    truth = float((names["target"] * names["environment"].scene(0).means[0]).sum())
    low, high = names["estimate"].interval(1.0 - 1e-6)  # doubly robust
    assert low < truth < high
    assert names["high"] - names["low"] < 0.5


def what_has_been_seen_narrows_predictions(names: dict[str, Any], printed: str, folder: Path) -> None:
    assert "log restricted likelihood" in printed
    known, _, unknown = names["fit"].predict(names["later"]).stddev
    after = names["posterior"].predict(names["model"].inputs(names["later"])).stddev[0]
    assert known < after < unknown
    assert 15.0 < names["fit"].standard_deviations["Intercept"] < 35.0


FINDINGS = {
    BANDITS: the_past_makes_policies_better,
    LOGGING: the_log_tells_what_is_true,
    BOTORCH: candidates_are_better_than_what_was_tried,
    CHECKS: checks_prefer_the_learned_prior,
    MIXED: what_has_been_seen_narrows_predictions,
    OPTUNA: the_past_makes_few_trials_do,
    CHOOSING: evidence_chooses_the_truth_and_averages_cover,
}


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_the_examples_run_and_find_what_the_page_says(
    page: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, printed = run(page), capsys.readouterr().out
    assert printed
    if page in FINDINGS:
        FINDINGS[page](names, printed, elsewhere)


def test_every_check_of_the_page_exists() -> None:
    from bayesmeta.checks import calibration, comparison, plots, predictive_checks

    table = [row.split("|")[2:4] for row in CHECKS.read_text().splitlines() if row.startswith("| ") and "`" in row]
    named = set(re.findall(r"`(\w+)`", " ".join(cell for row in table for cell in row)))
    assert len(named) >= 15
    exported = {name for module in (calibration, comparison, plots, predictive_checks) for name in module.__all__}
    assert named <= exported


def test_every_family_can_be_chosen() -> None:
    exported = {name: getattr(bayesmeta, name) for name in bayesmeta.__all__}
    families = {
        name
        for name, each in exported.items()
        if isinstance(each, type) and hasattr(each, "initial") and hasattr(each, "condition")
    }
    assert len(families) >= 15
    # what its list explains comes first in an item, in bold; what other items or tables say does not count
    explained = {
        name
        for line in CHOOSING.read_text().splitlines()
        if line.startswith("- **")
        for name in re.findall(r"\*\*`([\w.]+)`\*\*", line)
    }
    assert families | {"Mixture", "bo.TuningPrior"} <= explained
    assert {name for name in explained if "." not in name} <= exported.keys()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short_but_for_tables_and_links(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), 1)
    assert not [n for n, line in lines if len(line) > 120 and not line.startswith("|") and " " in line.strip()]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if heading:
            assert heading in anchors_of(target), f"{page.name} links to {link}, a heading that does not exist"


# the changelog names files as they were
@pytest.mark.parametrize(
    "page", [page for page in ALL_PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = set(
        re.findall(r"`((?:bayesmeta|bandits|bo|benchmarks|docs|notebooks|tests)/[\w/.-]+\.\w+)", page.read_text())
    )
    assert {name for name in named if not (ROOT / name).exists()} == set()


def anchors_of(page: Path) -> set[str]:
    """Headings as GitHub names them: small letters, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
