"""What a few ratings of a user say of the others: Jester, where users are tasks, jokes are arms and ratings rewards.

Priors are learned from past users and judged on new ones, see `few_rows`. A user rates a joke once, so no joke is
predicted after it was shown, and all that a rating tells comes by way of what arms share.

Every prior is a `CorrelatedArms`, and each baseline is the family with fewer ways for arms to vary together:

- `correlated`: any covariance, as `CorrelatedArms.initial(past).fit(past)` learns it.
- `correlated_from_offset`: the same, with `offset` as the centre of the hyperprior and the start of the search.
- `offset`: y = level of the joke + offset of the user + noise with a variance for each joke. One number per user.
- `independent`: the same without the offset. What is shown says nothing of the rest.
- `complete_pooling`: the mean of each joke, the same for all users, and one variance for all rows.

The last three are fair: each is learned from the same rows, by the evidence of what it says of them. Levels and
variances of jokes are partly pooled, levels by as much as jokes differ, logarithms of variances with a standard
deviation of a half, so that jokes with few ratings do no harm; with hundreds of ratings each they are hardly moved.

Source: Goldberg, Roeder, Gupta and Perkins, Eigentaste: a constant time collaborative filtering algorithm (2001).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Data, arm_statistics
from bayesmeta.numerics.optimise import maximise
from bayesmeta.random import rand

__all__ = ["METHODS", "as_tasks", "most_probable_baseline", "offset_evidence", "read", "split_users", "thinned"]

LARGEST = math.log(1e6)  # entry of a vector that is searched, in its units
LOG_VAR_WIDTH = 0.5  # standard deviation of the logarithms of jokes' variances
# Where each row is of its own arm, rows cannot tell noise from variation of single arms, and what is predicted of
# other arms does not depend on it. The hyperprior does: it pulls towards the part that is not called noise.
SHARE_OF_NOISE = 0.1  # of the least variance of an arm about its level and the user's


def read(file: Path) -> Data:
    """The ratings in a NumPy archive, as `as_tasks` takes them."""
    with np.load(file) as arrays:
        return as_tasks(torch.from_numpy(arrays["ratings"]).double())


def as_tasks(ratings: Tensor) -> Data:
    """Users as tasks with a row for each joke, masked where it was not rated.

    Args:
        ratings: `(users, jokes)`, NaN where a joke was not rated.
    """
    rated = ~ratings.isnan()
    joke = torch.arange(ratings.shape[1]).to(ratings)[:, None]
    return Data(joke.expand(*ratings.shape, 1), ratings.where(rated, 0.0), rated)


def split_users(data: Data, generator: Generator) -> tuple[Data, Data]:
    """Past users, three quarters of all in random order, and new ones."""
    order = torch.randperm(len(data.mask), generator=generator)
    num_past = 3 * len(order) // 4
    return data[order[:num_past]], data[order[num_past:]]


def thinned(data: Data, share: float, generator: Generator) -> Data:
    """Each rating is kept with probability `share`."""
    kept = rand(data.mask.shape, like=data.y, generator=generator) < share
    return Data(data.x, data.y, data.mask & kept)


def correlated(past: Data) -> CorrelatedArms:
    return CorrelatedArms.initial(past, num_arms=past.mask.shape[-1]).fit(past)


def correlated_from_offset(past: Data) -> CorrelatedArms:
    return offset(past).fit(past)


def offset(past: Data) -> CorrelatedArms:
    return most_probable_baseline(past, with_offset=True)


def independent(past: Data) -> CorrelatedArms:
    return most_probable_baseline(past, with_offset=False)


def complete_pooling(past: Data) -> CorrelatedArms:
    """Levels of jokes after the rows of all past users as those of one task, under a flat prior."""
    stats = arm_statistics(past, past.mask.shape[-1]).sum()
    noise_var = stats.scatter.sum() / stats.count.sum()
    return CorrelatedArms(stats.mean[..., 0], (noise_var / stats.count).sqrt().diag(), noise_var)


METHODS: dict[str, Callable[[Data], CorrelatedArms]] = {
    "correlated": correlated,
    "correlated_from_offset": correlated_from_offset,
    "offset": offset,
    "independent": independent,
    "complete_pooling": complete_pooling,
}


def most_probable_baseline(past: Data, *, with_offset: bool) -> CorrelatedArms:
    """Levels and variances of jokes, their common centres, and the variance of offsets, found by gradient."""
    stats = arm_statistics(past, past.mask.shape[-1]).sum()
    count, mean, k = stats.count, stats.mean[..., 0], len(stats.count)
    unit = stats.scatter.sum() / count.sum()
    # what the means of jokes differ by beyond chance; with no such variance the search would end at no difference
    spread = (mean.var() - (unit / count).mean()).clamp(min=1e-3 * unit).sqrt()

    def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level = mean.mean() + unit.sqrt() * vector[0] + spread * vector[3 : 3 + k]
        var = unit * (vector[1] + LOG_VAR_WIDTH * vector[3 + k :]).exp()
        return level, var, (unit * vector[2].exp() if with_offset else torch.zeros_like(unit))

    def objective(vector: Tensor) -> Tensor:
        evidence = offset_evidence(past.y, past.mask, *natural(vector)).sum()
        return (evidence - 0.5 * vector[3:].square().sum()) / count.sum()

    start = torch.zeros(3 + 2 * k).to(mean)
    best = maximise(objective, start, limit=torch.full_like(start, LARGEST))
    return equicorrelated(*natural(best))


def equicorrelated(level: Tensor, var: Tensor, offset_var: Tensor) -> CorrelatedArms:
    """Rows are y = level + offset + e, e of variance `var` `(jokes,)`, of which a part is called noise."""
    noise_var = SHARE_OF_NOISE * var.min()
    cov = offset_var + (var - noise_var).diag()
    return CorrelatedArms(level, torch.linalg.cholesky(cov), noise_var)


def offset_evidence(y: Tensor, mask: Tensor, level: Tensor, var: Tensor, offset_var: Tensor) -> Tensor:
    """log p(y) of each user, the offset integrated out: a normal whose covariance is diagonal plus rank one."""
    precision, error = mask / var, y - level
    pull, total = (precision * error).sum(-1), precision.sum(-1)
    distance = (precision * error.square()).sum(-1) - offset_var * pull.square() / (1.0 + offset_var * total)
    volume = (mask * (2.0 * math.pi * var).log()).sum(-1) + torch.log1p(offset_var * total)
    return -0.5 * (volume + distance)
