"""Folders of finished tables, read as pools. Files are recognised by what they hold, whatever the folder is called:

- **a table per space**, `SPACE.parquet`: a column `dataset`, parameters in [0, 1], and a target, `accuracy` unless it
  is named. Each task has configurations of its own. This is HPO-B's layout.
- **shared configurations**, `SPACE_configs.parquet` with a column `config`, and `SPACE_values.parquet` with `task`,
  `config` and metrics, of which the first is the target unless it is named. A column `NAME__unit` is in [0, 1] and
  stands for NAME.
- **arrays**, `SPACE.npz`: targets `Y` or `error`, (tasks, n), of the same n configurations in every task, which are the
  rows of an array `X` (and `names` of its columns), or of `configs.parquet` beside the file.

Other columns of shared configurations are encoded as `SearchSpace.infer` finds them, numbers by their range over the
table, on a log scale where that centres them, and entries may be missing. Targets of a known name, such as `logloss`,
are minimised, others maximised. Rows without a finite target are left out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from torch import Tensor

from bo import SearchSpace
from bo.replay.pool import Pool

__all__ = ["Objective", "Pools", "find"]

MINIMISED = {"cross_entropy", "error", "log_loss", "logloss", "loss", "val_cross_entropy"}
UNIT = "__unit"

Pools = dict[str, Pool]


@dataclass(frozen=True)
class Objective:
    """Which column or array is the objective, and its direction; None takes what is usual."""

    target: str | None = None
    direction: str | None = None

    def choose(self, place: Path, known: Sequence[str]) -> tuple[str, float]:
        """The target's name, and the sign with which more is better.

        Raises:
            ValueError: the target is not among `known`, of which the first is the usual one.
        """
        target = self.target or known[0]
        if target not in known:
            raise ValueError(f"{place} has no target {target!r}; it has {', '.join(known)}")
        direction = self.direction or ("minimize" if target in MINIMISED else "maximize")
        return target, -1.0 if direction == "minimize" else 1.0


def find(folder: Path, objective: Objective) -> dict[str, Callable[[], Pools]]:
    """What reads each space of a folder, by the name of the space.

    Raises:
        ValueError: there is none.
    """
    readers: dict[str, Callable[[], Pools]] = {}
    for file in sorted(folder.glob("*.parquet")):
        columns, space = set(pl.read_parquet_schema(file)), file.stem.removesuffix("_values")
        configs = file.with_name(f"{space}_configs.parquet")
        if "dataset" in columns:
            readers[file.stem] = partial(_table_per_space, file, objective)
        elif {"task", "config"} <= columns and configs.exists():
            readers[space] = partial(_shared_tables, configs, file, objective)
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as arrays:
            if {"Y", "error"} & set(arrays):
                readers[file.stem] = partial(_arrays, file, objective)
    if not readers:
        raise ValueError(f"{folder} holds no search space in a layout that is known; --help describes these")
    return readers


def _table_per_space(file: Path, objective: Objective) -> Pools:
    table = pl.read_parquet(file).with_columns(pl.col("dataset").cast(pl.String))
    known = ["accuracy", objective.target or ""]
    target, sign = objective.choose(file, [c for c in known if c in table.columns] or table.columns)
    table = table.filter(pl.col(target).is_finite())
    names = [c for c in table.columns if c not in ("dataset", target)]
    space = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in names})
    found = {}
    for (task,), rows in table.group_by("dataset", maintain_order=True):
        columns = rows.select(pl.col(names).cast(pl.Float64).clip(0.0, 1.0))
        x = torch.tensor(columns.to_numpy(), dtype=torch.float64)
        found[str(task)] = Pool(space, columns.to_dicts(), x, sign * _numbers(rows[target].to_numpy()))
    return found


def _shared_tables(configs_file: Path, values_file: Path, objective: Objective) -> Pools:
    configs, values = pl.read_parquet(configs_file), pl.read_parquet(values_file)
    known = [c for c in values.columns if c not in ("task", "config")]
    target, sign = objective.choose(values_file, known)
    wide = values.select("task", "config", target).pivot(on="config", index="task", values=target)
    ids = [str(config) for config in configs["config"]]
    y = wide.select(*[name for name in ids if name in wide.columns])
    seen = configs.filter(pl.col("config").cast(pl.String).is_in(y.columns)).drop("config")
    return _shared(seen, wide["task"].cast(pl.String), sign * _numbers(y.to_numpy()))


def _arrays(file: Path, objective: Objective) -> Pools:
    with np.load(file) as arrays:
        target, sign = objective.choose(file, [name for name in ("Y", "error") if name in arrays] + list(arrays))
        y = sign * _numbers(arrays[target])
        labels = next((arrays[name] for name in ("tasks", "dataset") if name in arrays), np.arange(len(y)))
        if "X" in arrays:
            names = arrays["names"] if "names" in arrays else [f"x{i}" for i in range(arrays["X"].shape[1])]
            columns = zip(map(str, names), arrays["X"].T.astype(np.float64), strict=True)
            configs = pl.DataFrame(dict(columns))
        else:
            configs = _beside(file)
    return _shared(configs, map(str, labels), y)


def _beside(file: Path) -> pl.DataFrame:
    """The table of configurations that belongs to a file of arrays."""
    for place in (file.with_name(f"{file.stem}_configs.parquet"), file.with_name("configs.parquet")):
        if place.exists():
            return pl.read_parquet(place).drop("config", strict=False)
    raise ValueError(f"{file} has no array X, and there is no configs.parquet beside it")


def _shared(configs: pl.DataFrame, tasks: Iterable[str], y: Tensor) -> Pools:
    """A pool per row of y `(tasks, n)`, of the rows of `configs`."""
    if y.shape[1] != len(configs):
        raise ValueError(f"targets must be of the {len(configs)} configurations; got {y.shape[1]} of each task")
    space, params = _encoding(configs)
    x, found = space.to_unit(params), {}
    for task, values in zip(tasks, y, strict=True):
        known = values.isfinite()
        if bool(known.all()):
            found[task] = Pool(space, params, x, values)
        else:
            some = [p for p, is_known in zip(params, known.tolist(), strict=True) if is_known]
            found[task] = Pool(space, some, x[known], values[known])
    return found


def _encoding(configs: pl.DataFrame) -> tuple[SearchSpace, list[dict[str, object]]]:
    """The space of a table of configurations, and these as parameters, without those that are missing."""
    units = {c.removesuffix(UNIT): c for c in configs.columns if c.endswith(UNIT)}
    scaled = [configs[c].cast(pl.Float64).clip(0.0, 1.0).alias(name) for name, c in units.items()]
    others = [c for name in configs.columns if name not in {*units, *units.values()} for c in _columns(configs[name])]
    varied = [c for c in others if c.drop_nulls().n_unique() > 1]
    table = pl.DataFrame([*(c.fill_nan(None) for c in scaled), *varied])
    distributions: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in units}
    if varied:
        distributions |= SearchSpace.infer(table, [c.name for c in varied]).distributions
    rows = table.iter_rows(named=True)
    params = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return SearchSpace(distributions), params


def _columns(column: pl.Series) -> list[pl.Series]:
    """A column with missing entries as nulls; text that mostly holds numbers becomes these, and the rest beside."""
    if column.dtype.is_float():
        return [column.fill_nan(None)]
    if column.dtype not in (pl.String, pl.Categorical):
        return [column]
    text = column.cast(pl.String)
    numbers = text.cast(pl.Float64, strict=False)
    if 2 * numbers.count() <= text.count():
        return [text]
    frame = pl.DataFrame([numbers, text.alias("text")])
    words = frame.select(pl.when(pl.col(column.name).is_null()).then(pl.col("text")))["text"]
    return [numbers, words.alias(f"{column.name}_text")]


def _numbers(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
