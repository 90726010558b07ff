"""Which arms without rewards start from which with rewards: the nearest by their features."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.spatial.distance import cdist

from bandits.mab.learning_policies import Arm
from bayesmeta.describe import listed
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["NoDirectionWarning", "nearest"]


class NoDirectionWarning(BayesmetaWarning):
    """Features of an arm are all zero: a warm start by their direction passes it over."""


def nearest(
    arms: Sequence[Arm],
    features: Mapping[Arm, Sequence[float]],
    quantile: float,
    cold: Sequence[Arm],
    trained: set[Arm],
) -> Iterator[tuple[Arm, Arm]]:
    """Each cold arm that is near enough to a trained one, and that one; distances are of cosines."""
    place = {arm: i for i, arm in enumerate(arms)}
    matrix = np.array([features[arm] for arm in arms], dtype=float)
    directed = np.asarray(matrix.any(1))  # zeros have no direction, and so no cosine
    if not directed.all():
        lost = listed([arm for arm, is_directed in zip(arms, directed, strict=True) if not is_directed])
        warn(f"features of {lost} are all zero and point nowhere: no other arm is like them", NoDirectionWarning)
    with np.errstate(invalid="ignore"):
        distance = np.where(directed[:, None] & directed, cdist(matrix, matrix, "cosine"), np.inf)
    closest = (distance + np.diag(np.full(len(arms), np.inf))).min(1)
    threshold = np.quantile(closest[np.isfinite(closest)], quantile) if np.isfinite(closest).any() else -np.inf
    warm = [arm for arm in arms if arm in trained]
    for arm in cold if warm else []:
        best = min(warm, key=lambda other: distance[place[arm], place[other]])
        if distance[place[arm], place[best]] <= threshold:
            yield arm, best
