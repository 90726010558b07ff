r"""What a policy would have gained, from the log of another one.

With weights $w_i = \pi(a_i \mid x_i) / p_i$ of the policy in question over the logged propensities, and a model
$\hat q(x, a)$ of rewards:

- `ips`: $\frac1n \sum w_i r_i$, unbiased where propensities are right; its variance grows with the weights.
- `snips`: $\sum w_i r_i / \sum w_i$, which stays within the range of rewards; biased by order 1/n.
- `doubly_robust`:
  $\frac1n \sum_i \left( \sum_a \pi(a \mid x_i)\, \hat q(x_i, a) + w_i (r_i - \hat q(x_i, a_i)) \right)$, unbiased where
  propensities are right, and of little variance where the model is.

Sources: Horvitz and Thompson, A generalization of sampling without replacement from a finite universe (1952);
Swaminathan and Joachims, The self-normalized estimator for counterfactual learning (2015); Dudík, Langford and Li,
Doubly robust policy evaluation and learning (2011).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from bandits.decisions.numbers import numbers_of, require_number
from bandits.evaluation.logs import Log
from bayesmeta.data.validation import require_finite
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = [
    "Estimate",
    "FewSamplesWarning",
    "doubly_robust",
    "estimate_from",
    "ips",
    "require_decisions",
    "snips",
]

FEW = 30  # effective samples: below, a mean is not normal enough for its interval
ROUNDING = 1e-4  # of probabilities that add to one
SAME = 1e-9  # a standard error that is this share of the value, or less, is rounding


class FewSamplesWarning(BayesmetaWarning):
    """Few logged decisions say anything of the policy: its interval is not to be trusted."""


@dataclass(frozen=True)
class Estimate:
    """The value of a policy, per decision.

    Args:
        value: the estimate.
        standard_error: of it; between clusters, where they were given; infinite where all decisions are of one.
        effective: how many decisions of the policy itself the log is worth, sum(w)^2 / sum(w^2).
        clusters: independent units that the error was taken from.
    """

    value: float
    standard_error: float
    effective: float
    clusters: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """By Student's t, with as many degrees of freedom as there are clusters less one."""
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1; got {level}")
        half = float(scipy.stats.t.ppf(0.5 + 0.5 * level, max(1, self.clusters - 1))) * self.standard_error
        return self.value - half, self.value + half


def ips(log: Log, probabilities: Any, *, clip: Any = math.inf, cluster: Any = None) -> Estimate:
    """Inverse propensity scores.

    Args:
        probabilities: of all arms under the policy in question, `(n, arms)`, or `(arms,)` where they are always the
            same; a tensor, array, frame or lists.
        clip: greatest weight, above 0; larger ones are cut to it, which trades variance for a bias towards zero.
        cluster: a number or name for each decision; decisions of the same one, such as of one user, are not
            independent.

    Raises:
        TypeError: probabilities or `clip` are no numbers.
        ValueError: the log is empty; probabilities are of another shape, negative, NaN, or do not add to one; `clip` is
            not above 0.

    Warns:
        FewSamplesWarning: less than 30 effective samples, or one cluster.
    """
    weight = _weights(log, _checked(log, probabilities), clip)
    value = (weight * log.reward).mean()
    return estimate_from(value, weight * log.reward - value, weight, cluster)


def snips(log: Log, probabilities: Any, *, clip: Any = math.inf, cluster: Any = None) -> Estimate:
    """Self-normalised inverse propensity scores; arguments as of `ips`, the error by the delta method."""
    weight = _weights(log, _checked(log, probabilities), clip)
    total = weight.mean()
    if not float(total):
        raise ValueError("the policy would have made none of the logged decisions: the log says nothing of it")
    value = (weight * log.reward).mean() / total
    return estimate_from(value, weight * (log.reward - value) / total, weight, cluster)


def doubly_robust(
    log: Log, probabilities: Any, predicted: Any, *, clip: Any = math.inf, cluster: Any = None
) -> Estimate:
    """A model of rewards, corrected by what the log says of it.

    Args:
        predicted: expected reward of every arm at each decision `(n, arms)`, by a model that has not seen the reward of
            that decision, such as `fitted_rewards`.

    Raises:
        ValueError: as of `ips`; or `predicted` is of another shape, or not finite.
    """
    each, model = _checked(log, probabilities), numbers_of(predicted, "predicted")
    if model.shape != (len(log), log.num_arms):
        raise ValueError(f"predicted must have shape ({len(log)}, {log.num_arms}); got {tuple(model.shape)}")
    require_finite("predicted", model)
    weight = _weights(log, each, clip)
    left = log.reward - model.gather(1, log.arm[:, None])[:, 0]
    terms = (each * model).sum(-1) + weight * left
    value = terms.mean()
    return estimate_from(value, terms - value, weight, cluster)


def require_decisions(log: Log) -> None:
    """Refuse an empty log by a ValueError."""
    if not len(log):
        raise ValueError("the log has no decisions: it says nothing of any policy")


def _checked(log: Log, probabilities: Any) -> Tensor:
    """Probabilities of all arms at each decision, `(n, arms)` in float64."""
    require_decisions(log)
    given = numbers_of(probabilities, "probabilities")
    each = given.expand(len(log), -1) if given.ndim == 1 else given
    if each.shape != (len(log), log.num_arms):
        raise ValueError(f"probabilities must have shape ({len(log)}, {log.num_arms}); got {tuple(given.shape)}")
    right = ((each.sum(-1) - 1.0).abs() <= ROUNDING) & (each >= 0).all(-1)  # and not NaN
    if not bool(right.all()):
        row = int((~right).nonzero()[0])
        raise ValueError(
            f"probabilities must be at least 0 and add to one; those of decision {row} do not: {each[row].tolist()}"
        )
    return each


def _weights(log: Log, each: Tensor, clip: Any) -> Tensor:
    """Of each decision, `(n,)`: how much more probable it is under the policy in question, at most `clip`."""
    require_number("clip", clip, 0.0, above=True, finite=False)
    weight = each.gather(1, log.arm[:, None])[:, 0] / log.propensity.double()
    return weight.clamp(max=float(clip))


def _units(cluster: Any, n: int) -> Tensor:
    """The number of each decision's cluster, from 0, `(n,)`."""
    labels = np.asarray(cluster.to_numpy() if hasattr(cluster, "to_numpy") else cluster)
    if labels.shape != (n,):
        got = len(labels) if labels.ndim == 1 else f"shape {labels.shape}"
        raise ValueError(f"cluster must have a number for each of {n} decisions; got {got}")
    missing = next((i for i, label in enumerate(labels.tolist()) if _is_missing(label)), None)
    if missing is not None:
        raise ValueError(f"cluster must say of each decision whose it is; that of decision {missing} is missing")
    try:
        return torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    except TypeError as error:  # which have no order
        raise TypeError(f"cluster must be numbers, or names, all of one kind; {error}") from error


def _is_missing(label: Any) -> bool:
    """None, NaN, and whatever else is not equal to itself."""
    try:
        return label is None or bool(label != label)
    except TypeError:  # the missing value of pandas is neither
        return True


def estimate_from(value: Tensor, influence: Tensor, weight: Tensor, cluster: Any) -> Estimate:
    """An estimate with its standard error, and a warning where its interval is not to be trusted.

    Args:
        value: the estimate.
        influence: what each decision moves it by, times their number; sums to zero, `(n,)`.
        weight: of each decision `(n,)`.
        cluster: of each, as of `ips`.
    """
    n = len(influence)
    if cluster is not None:
        place = _units(cluster, n)
        influence = torch.zeros(int(place.max()) + 1, dtype=influence.dtype).index_add_(0, place, influence)
    units = len(influence)
    # of one unit the influence is zero, and nothing is known of how others would differ
    error = math.sqrt(float(influence.square().sum()) * units / (units - 1)) / n if units > 1 else math.inf
    squares = float(weight.square().sum())
    effective = float(weight.sum()) ** 2 / squares if squares else 0.0
    if units == 1 and n > 1:
        warn(
            f"all {n} decisions are of one cluster, which says nothing of how clusters differ: there is no standard "
            "error. Log others, or leave cluster out where decisions are independent",
            FewSamplesWarning,
        )
    elif effective < FEW:
        warn(
            f"the log is worth {effective:.3g} decisions of this policy, which is too few for an interval: "
            "log more, or a policy that explores more",
            FewSamplesWarning,
        )
    elif error <= SAME * abs(float(value)):
        warn(
            f"all {n} decisions that count say the same: an interval without width, and yet not certain. Log until "
            "rewards differ",
            FewSamplesWarning,
        )
    return Estimate(float(value), error, effective, units)
