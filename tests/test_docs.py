"""The examples of docs/checks.md run as they stand, one after another."""

import re
from pathlib import Path

import matplotlib
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "checks.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(EXAMPLES) == 2
    for example in EXAMPLES:
        exec(compile(example, "checks.md", "exec"), names)
    plt.close("all")
    assert "learned: -13." in capsys.readouterr().out
    assert (tmp_path / "checks.png").stat().st_size > 10_000
    best = names["ranking"][0]  # type: ignore[index]
    assert best.name == "learned"


def test_every_check_of_the_page_exists() -> None:
    from bayesmeta import calibration, comparison, plots, predictive_checks

    table = [row.split("|")[2:4] for row in PAGE.read_text().splitlines() if row.startswith("| ") and "`" in row]
    named = set(re.findall(r"`(\w+)`", " ".join(cell for row in table for cell in row)))
    assert len(named) >= 15
    exported = {name for module in (calibration, comparison, plots, predictive_checks) for name in module.__all__}
    assert named <= exported
