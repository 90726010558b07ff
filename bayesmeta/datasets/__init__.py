"""Small tables that the project made itself; `README.md` beside this file is their card."""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["load_tuning_tasks"]


def load_tuning_tasks(model: str) -> "pl.DataFrame":
    """Past tuning tasks of one scikit-learn model, in long form: task, config, parameters, log_loss, accuracy, cpu_s.

    Args:
        model: "svc", "boosting" or "perceptron".
    """
    import polars as pl

    path = files(__name__) / f"{model}.parquet"
    if not path.is_file():
        raise ValueError(f'model must be "svc", "boosting" or "perceptron"; got {model!r}')
    return pl.read_parquet(path.read_bytes())


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
