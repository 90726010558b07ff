"""Scores of single tasks by method and setting, as figures and as a table.

A method's scores are `{"minutes": ..., "scores": {score: {setting: [one number per task]}}}`, as they lie in a piece.
All methods are asked about the same tasks, so that differences to one of them are paired.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["Rows", "as_figures", "as_rows", "as_table", "interval"]

IS_ERROR = {"mse"}  # scores of which less is better


def as_rows(section: str, found: Mapping[str, Mapping[str, Any]], beside: str) -> Rows:
    """One row for each setting and method, with intervals of each score and of how far it is behind another method.

    Args:
        found: scores by method.
        beside: the method that others are behind.
    """
    rows = []
    for setting in dict.fromkeys(name for scores in found[beside]["scores"].values() for name in scores):
        for method, each in found.items():
            row = {"section": section, "setting": setting, "method": method, "minutes": each["minutes"]}
            for score, by_setting in each["scores"].items():
                if setting not in by_setting:
                    continue
                values = torch.tensor(by_setting[setting])
                best = found[beside]["scores"][score][setting]
                behind = (torch.tensor(best) - values) * (-1.0 if score in IS_ERROR else 1.0)
                row |= {score: interval(values), f"{score}_gap": interval(behind)}
            rows.append(row)
    return rows


def as_figures(rows: Rows, meanings: Mapping[str, str]) -> list[Figure]:
    """`<score>/<section>/<setting>/<method>` and halves of 95% intervals, gaps likewise, and CPU-minutes.

    Args:
        meanings: of the scores.
    """
    figures = []
    for row in rows:
        of = f"{row['section']}/{row['setting']}/{row['method']}"
        for score in (name for each in meanings for name in (each, f"{each}_gap") if name in row):
            what = meanings[score.removesuffix("_gap")] + (", behind" if score.endswith("_gap") else "")
            mean, half = row[score]
            figures.append(Figure(f"{score}/{of}", mean, what))
            figures.append(Figure(f"{score}_half/{of}", half, f"half of the interval of 95% of {score}"))
    minutes = {f"train_cpu_min/{row['section']}/{row['method']}": row["minutes"] for row in rows}
    return figures + [
        Figure(name, value, "CPU-minutes of learning") for name, value in minutes.items() if value is not None
    ]


def as_table(title: str) -> Callable[[Rows], Table]:
    """Shows rows under a title."""

    def shown(rows: Rows) -> Table:
        table = Table(title=f"{title}, with intervals of 95% over tasks")
        scores = [name for name in (rows[0] if rows else {}) if name not in ("section", "setting", "method", "minutes")]
        for column in ("setting", "method", "CPU-min", *scores):
            table.add_column(column)
        for row in rows:
            cells = [f"{row[name][0]:.3f} ± {row[name][1]:.3f}" if name in row else "" for name in scores]
            minutes = "" if row["minutes"] is None else f"{row['minutes']:.2f}"
            table.add_row(row["setting"], row["method"], minutes, *cells)
        return table

    return shown


def interval(values: Tensor) -> list[float]:
    """Mean, and half of its interval of 95%."""
    return [float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))]
