r"""How far to trust the past on a new task: a question of evidence, asked again after every row.

A learned Gaussian process is right about a new task only if that task resembles the past ones. So several hypotheses
are kept at once and weighted by their marginal likelihood on the new task's rows:

- the past applies: its mean, and variation about it, with more or less variation than past tasks showed;
- only the learned kernel applies: functions are as smooth as they used to be, in the same inputs;
- nothing applies: isotropic processes of several lengthscales and little noise. The noise is not the learned one: a
  past without structure explains everything by noise, and would keep these from learning too.

Each comes at several scales of y, since the rows of a new task, seen first where the past was good, show only a part
of its range.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesmeta.gp import GaussianProcess
from bayesmeta.hierarchy import Mixture

__all__ = ["transfer_hypotheses", "trust", "trusting"]

# Prior weights and grids, fixed in advance; their exact values matter little (docs/design.md).
PAST = 0.8  # the prior probability that the past applies in some form
DIRECTION_FACTORS = (0.1, 1.0)  # of the learned variance along past directions
RESIDUALS = (0.1, 0.3, 1.0)  # variance of what no past task showed, as shares of the variance of past rows
LENGTHSCALES = (0.15, 0.3, 0.6)  # of vague processes, as shares of the diagonal of the past inputs' box
VAGUE_NOISE = 0.05  # noise of vague processes, relative to the variance of past rows
SCALES = tuple(math.exp(-1.5 + 0.5 * i) for i in range(5))
LEVEL_VAR = 4.0  # of the level, relative to the variance of past rows


class _Structure(NamedTuple):
    """One hypothesis about a new task, but for its scale."""

    past_weight: Tensor
    past_var: Tensor
    outputscale: Tensor
    lengthscale: Tensor
    noise_var: Tensor


def transfer_hypotheses(learned: GaussianProcess) -> Mixture:
    """A mixture (structures) of mixtures (scales) of Gaussian processes, around one that was learned from past tasks.

    The first `len(DIRECTION_FACTORS) * len(RESIDUALS)` structures trust the past, the next the learned kernel
    only, the rest nothing; `trust` sums their weights.

    Raises:
        ValueError: `learned` has no past functions, or has a batch.
    """
    if learned.past is None or learned.batch_shape:
        raise ValueError("transfer_hypotheses needs one prior learned from past tasks; use GaussianProcess.fit(tasks)")
    points = learned.past.points
    mean, directions = learned.past(points)
    explained = learned.past_weight.square() * mean.var(correction=0)
    explained = explained + learned.past_var * directions.square().sum(-1).mean()
    total = explained + learned.outputscale + learned.noise_var
    zero, span = torch.zeros_like(total), points.amax(0) - points.amin(0)
    diagonal = span.where(span > 0, 1.0) * math.sqrt(len(span))

    trusting = [
        _Structure(learned.past_weight, f * learned.past_var, r * total, learned.lengthscale, learned.noise_var)
        for f in DIRECTION_FACTORS
        for r in RESIDUALS
    ]
    kernel = [_Structure(zero, zero, total, learned.lengthscale, learned.noise_var)]
    nothing = [_Structure(zero, zero, total, share * diagonal, VAGUE_NOISE * total) for share in LENGTHSCALES]
    structures = [*trusting, *kernel, *nothing]
    # structures along the first axis, scales along the second
    fields: dict[str, Any] = {
        name: torch.stack(each)[:, None]
        for name, each in zip(_Structure._fields, zip(*structures, strict=True), strict=True)
    }
    scale = torch.tensor(SCALES).to(total)
    processes = replace(learned, **fields, constant_var=LEVEL_VAR * total, scale=scale)
    num_past, num_rest = len(trusting), len(kernel) + len(nothing)
    weights = [PAST / num_past] * num_past + [(1.0 - PAST) / num_rest] * num_rest
    return Mixture(Mixture.uniform(processes).to(total), torch.tensor(weights).to(total).log())


def trusting(hypotheses: Mixture) -> Mixture:
    """The same hypotheses, given that the past applies in some form."""
    applies = torch.arange(hypotheses.log_weights.shape[-1]) < len(DIRECTION_FACTORS) * len(RESIDUALS)
    log_weights = hypotheses.log_weights.masked_fill(~applies.to(hypotheses.log_weights.device), -torch.inf)
    return Mixture(hypotheses.components, log_weights.log_softmax(-1))


def trust(hypotheses: Mixture) -> dict[str, Tensor]:
    """Posterior probabilities that the past applies, that only its kernel does, and that nothing does."""
    num_past = len(DIRECTION_FACTORS) * len(RESIDUALS)
    past, kernel, nothing = hypotheses.weights.split([num_past, 1, len(LENGTHSCALES)], -1)
    return {"past": past.sum(-1), "kernel": kernel.sum(-1), "nothing": nothing.sum(-1)}
