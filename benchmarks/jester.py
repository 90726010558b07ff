"""What a few ratings of a user say of the others: Jester, where users are tasks, jokes are arms and ratings rewards.

Priors are learned from past users and judged on new ones. Of each new user some ratings are shown, in random order,
and those after the greatest number that is ever shown are predicted: the same ones whatever was shown. A user rates a
joke once, so no joke is predicted after it was shown, and all that a rating tells comes by way of what arms share.

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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Data, arm_statistics
from bayesmeta.optimise import maximise
from bayesmeta.predictive_checks import TaskMean
from bayesmeta.random import rand
from benchmarks.report import Figure

__all__ = [
    "METHODS",
    "SHOWN",
    "Method",
    "NewUsers",
    "Prediction",
    "as_tasks",
    "compare",
    "figures",
    "offset_evidence",
    "predict",
    "read",
    "shuffled",
    "split_users",
    "thinned",
]

SHOWN = (0, 5, 20)  # ratings of a new user
LEVEL = 0.9
HALF_WIDTH = 1.6448536269514722  # of a central interval of that level, in standard deviations of a normal
LARGEST = math.log(1e6)  # entry of a vector that is searched, in its units
LOG_VAR_WIDTH = 0.5  # standard deviation of the logarithms of jokes' variances
# Where each row is of its own arm, rows cannot tell noise from variation of single arms, and what is predicted of
# other arms does not depend on it. The hyperprior does: it pulls towards the part that is not called noise.
SHARE_OF_NOISE = 0.1  # of the least variance of an arm about its level and the user's


@dataclass(frozen=True)
class Prediction:
    """How well the hidden ratings of new users are predicted, by user.

    Args:
        log_score: mean log predictive density of a rating.
        squared_error: mean square of the rating less the mean of its prediction.
        coverage: share inside central 90% intervals.
    """

    log_score: TaskMean
    squared_error: TaskMean
    coverage: TaskMean


@dataclass(frozen=True)
class Method:
    """One prior: seconds that learning it took, and predictions by the number of ratings shown."""

    seconds: float
    after: dict[int, Prediction]


@dataclass(frozen=True)
class NewUsers:
    """New users, their ratings in random order: `place` is -1 where a joke was not rated, `(users, jokes)`."""

    data: Data
    place: Tensor

    def shown(self, number: int) -> Data:
        """The first ratings of each user, all of them where there are fewer."""
        return self._some((self.place >= 0) & (self.place < number))

    @property
    def hidden(self) -> Data:
        """The ratings that are never shown."""
        return self._some(self.place >= max(SHOWN))

    def _some(self, mask: Tensor) -> Data:
        return Data(self.data.x, self.data.y, mask)


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


def shuffled(data: Data, generator: Generator) -> NewUsers:
    """The ratings of each user in an order drawn at random."""
    keys = rand(data.mask.shape, like=data.y, generator=generator).masked_fill(~data.mask, math.inf)
    place = keys.argsort(-1).argsort(-1)
    return NewUsers(data, place.masked_fill(~data.mask, -1))


def compare(past: Data, users: NewUsers) -> dict[str, Method]:
    """Every method, learned from `past` alone."""
    results = {}
    for name, learn in METHODS.items():
        start = time.perf_counter()
        prior = learn(past)
        seconds = time.perf_counter() - start
        results[name] = Method(seconds, {number: predict(prior, users, number) for number in SHOWN})
    return results


def predict(prior: CorrelatedArms, users: NewUsers, number: int) -> Prediction:
    """The hidden ratings of all users, after the first `number` of each."""
    hidden = users.hidden
    rating = prior.condition(users.shown(number)).predict(hidden.x)
    error = hidden.y - rating.mean
    inside = (error / rating.stddev).abs() < HALF_WIDTH
    values = (rating.log_prob(hidden.y), error.square(), inside)
    return Prediction(*(_by_user(value, hidden.mask) for value in values))


def figures(name: str, results: dict[str, Method]) -> list[Figure]:
    """As `name/method/log_score/number shown`; means over users with standard errors clustered by user."""
    found = []
    for method, result in results.items():
        stem = f"{name}/{method}"
        found.append(Figure(f"{stem}/fit_s", result.seconds, "to learn the prior, seconds"))
        for number, each in result.after.items():
            score, square, best = each.log_score, each.squared_error, results["correlated"].after[number].log_score
            behind = TaskMean(score.by_task - best.by_task)
            rmse = math.sqrt(square.value)
            found += [
                Figure(f"{stem}/log_score/{number}", score.value, f"per rating; to `correlated` {behind}"),
                Figure(f"{stem}/log_score_se/{number}", score.standard_error, "clustered by user"),
                Figure(f"{stem}/log_score_difference_se/{number}", behind.standard_error, "of that to `correlated`"),
                Figure(f"{stem}/rmse/{number}", rmse, f"+- {0.5 * square.standard_error / rmse:.2g}"),
                Figure(f"{stem}/coverage/{number}", each.coverage.value, f"+- {each.coverage.standard_error:.2g}"),
            ]
    return found


def correlated(past: Data) -> CorrelatedArms:
    return _initial(past).fit(past)


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


def _initial(past: Data) -> CorrelatedArms:
    return CorrelatedArms.initial(past, num_arms=past.mask.shape[-1])


def _by_user(values: Tensor, mask: Tensor) -> TaskMean:
    return TaskMean(values.double().masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1))
