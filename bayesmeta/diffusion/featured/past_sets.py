"""Past tasks as sets of arms: rows with equal features are of the same arm, and tasks with equal arms go together."""

from typing import NamedTuple

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.regression.arms_by_number import arm_statistics

__all__ = ["Group", "groups_of"]


class Group(NamedTuple):
    """Tasks that show the same arms.

    Args:
        tasks: their numbers `(b,)`.
        features: of the arms `(k, d)`.
        rows: of each arm of each task `(b, k)`.
    """

    tasks: Tensor
    features: Tensor
    rows: Statistics


def groups_of(tasks: Data) -> list[Group]:
    """By the arms that tasks show, in the order in which these come first.

    Args:
        tasks: on one axis, each with rows.
    """
    alike: dict[bytes, list[int]] = {}
    arms = [_arms(tasks, number) for number in range(len(tasks))]
    for number, (features, _) in enumerate(arms):
        alike.setdefault(bytes(features.cpu().numpy().tobytes()), []).append(number)
    return [_group(tasks, numbers, arms) for numbers in alike.values()]


def _arms(tasks: Data, number: int) -> tuple[Tensor, Tensor]:
    """Features of the arms of a task, sorted, and the arm of each of its rows."""
    real = tasks.x[number][tasks.mask[number]] + 0.0  # -0 is 0
    return torch.unique(real, dim=0, return_inverse=True)


def _group(tasks: Data, numbers: list[int], arms: list[tuple[Tensor, Tensor]]) -> Group:
    features, rows = arms[numbers[0]][0], [(arms[i][1][:, None], tasks.y[i][tasks.mask[i]]) for i in numbers]
    statistics = arm_statistics(Data.pad([(arm.to(y), y) for arm, y in rows]), len(features))
    return Group(torch.tensor(numbers, device=features.device), features, statistics)
