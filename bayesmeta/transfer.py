r"""How far to trust the past on a new task: a question of evidence, asked again after every row.

A learned Gaussian process is right about a new task only if that task resembles the past ones. So several hypotheses
are kept at once and weighted by their marginal likelihood on the new task's rows:

- the past applies: its mean, and variation about it, with more or less variation than past tasks showed;
- only the learned kernel applies: functions are as smooth as they used to be, in the same inputs;
- nothing applies: isotropic processes, of several lengthscales.

Each comes at several scales of y, since the rows of a new task, seen first where the past was good, show only a part
of its range.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from bayesmeta.gp import GaussianProcess
from bayesmeta.hierarchy import Mixture

__all__ = ["transfer_hypotheses", "trust"]

# Prior weights and grids, fixed in advance; their exact values matter little (docs/design.md).
PAST = 0.5  # the prior probability that the past applies in some form
DIRECTION_FACTORS = (0.1, 1.0)  # of the learned variance along past directions
RESIDUALS = (0.1, 0.3, 1.0)  # variance of what no past task showed, as shares of that of past functions
LENGTHSCALES = (0.15, 0.3, 0.6)  # of vague processes, as shares of the diagonal of the past inputs' box
SCALES = tuple(math.exp(-1.5 + 0.5 * i) for i in range(6))
LEVEL_VAR = 4.0  # of the level, relative to the variance of past functions


def transfer_hypotheses(learned: GaussianProcess) -> Mixture:
    """A mixture (structures) of mixtures (scales) of Gaussian processes, around one that was learned from past tasks.

    The first `len(DIRECTION_FACTORS) * len(RESIDUALS)` structures trust the past, the next the learned kernel
    only, the rest nothing; `trust` sums their weights.

    Raises:
        ValueError: `learned` has no past functions, or has a batch.
    """
    past = learned.past
    if past is None or learned.batch_shape:
        raise ValueError("transfer_hypotheses needs one prior learned from past tasks; use GaussianProcess.fit(tasks)")
    mean, directions = past(past.points)
    explained = learned.past_var * directions.square().sum(-1).mean()
    total = explained + learned.outputscale + learned.past_weight.square() * mean.var(correction=0)
    span = past.points.amax(0) - past.points.amin(0)
    diagonal = span.where(span > 0, 1.0) * math.sqrt(len(span))

    rows: list[tuple[float, float, Tensor, Tensor]] = []  # past weight, factor of directions, outputscale, lengthscale
    for factor in DIRECTION_FACTORS:
        rows += [(1.0, factor, share * total, learned.lengthscale) for share in RESIDUALS]
    rows += [(0.0, 0.0, total, learned.lengthscale)]
    rows += [(0.0, 0.0, total, share * diagonal) for share in LENGTHSCALES]
    weight, direction, outputscale, lengthscale = (
        torch.stack([torch.as_tensor(row[i]).to(total) for row in rows])[:, None] for i in range(4)
    )
    processes = replace(
        learned,
        lengthscale=lengthscale,
        outputscale=outputscale,
        constant_var=LEVEL_VAR * total,
        scale=torch.tensor(SCALES).to(total),
        past_weight=weight * learned.past_weight,
        past_var=direction * learned.past_var,
    )
    num_past = len(DIRECTION_FACTORS) * len(RESIDUALS)
    num_rest = len(rows) - num_past
    weights = [PAST / num_past] * num_past + [(1.0 - PAST) / num_rest] * num_rest
    scales = Mixture.uniform(processes)
    return Mixture(scales, torch.tensor(weights).to(total).log())


def trust(hypotheses: Mixture) -> dict[str, Tensor]:
    """Posterior probabilities that the past applies, that only its kernel does, and that nothing does."""
    num_past = len(DIRECTION_FACTORS) * len(RESIDUALS)
    past, kernel, nothing = hypotheses.weights.split([num_past, 1, len(LENGTHSCALES)], -1)
    return {"past": past.sum(-1), "kernel": kernel.sum(-1), "nothing": nothing.sum(-1)}
