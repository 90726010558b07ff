"""The examples of the README run as they stand."""

import re
from pathlib import Path

import optuna
import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_first_example_finds_a_good_configuration_in_five_trials() -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    names: dict[str, object] = {}
    exec(compile(EXAMPLES[0], "README.md", "exec"), names)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING  # hundreds of lines otherwise
    study = names["study"]
    assert isinstance(study, optuna.Study)
    assert study.best_value < 0.1
