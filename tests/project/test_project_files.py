"""Files that others read about the project: they parse, and say what the package says."""

from pathlib import Path

import pytest
import yaml

import bayesmeta

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path",
    ["CITATION.cff", ".pre-commit-config.yaml", ".github/workflows/ci.yml", ".github/ISSUE_TEMPLATE/wrong_answer.yml"],
)
def test_they_parse(path: str) -> None:
    assert yaml.safe_load((ROOT / path).read_text())


def test_a_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == bayesmeta.__version__


def test_continuous_integration_runs_what_must_hold() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["all"]
    assert {"run": ".ci/run"} in job["steps"]
    assert (ROOT / ".ci" / "run").is_file()
