r"""The hyperparameters of logistic and Poisson regressions: what a search or MCMC moves, and the evidence of tasks.

Weights are $w = \text{loc}_0 + U v$, with U such that v has mean zero and covariance I under the prior where the search
starts. Unknown are the mean of v, the logs of its standard deviations, and what ties its entries. A weight that all
tasks share has a mean only; its unit is that of `initial`, two on the scale of the log odds (one for a log rate) per
root mean square of its column, so that a prior which knows that weight already can learn it again from other tasks.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bayesmeta.correlations import LARGEST_TILT, TOGETHER, scale_tril
from bayesmeta.data import Data
from bayesmeta.hyperparameters import Hyperparameter, Hyperparameters
from bayesmeta.laplace import Rows, differentiable, factor, fit_mode, log_evidence
from bayesmeta.linalg import differentiated, symmetric
from bayesmeta.predictor import rows_of
from bayesmeta.validation import require_enough_tasks

__all__ = ["hyperparameters"]

LARGEST_RATIO = 1e4  # of the standard deviation of a weight to that of the prior where the search starts
KNOWN = 1e-8  # standard deviation of a weight that all tasks share, in its unit: no row can tell it from zero
SAME_WEIGHT = (
    "tasks do not differ in this weight by more than chance and are taken to share it, or, at the upper limit, "
    "differ more than any rows could show"
)


def hyperparameters(prior: Any, tasks: Data) -> Hyperparameters:
    """In units where `prior` has mean zero and covariance I: loc, log standard deviations, and what ties weights.

    Scales apart from correlations: each weight's scale has the same hyperprior, whatever the order of columns. Entries
    are numbered as `loc` is; weights that all tasks share have no `log_scale`, and `below_diagonal` ties the others.
    The evidence has derivatives of any order up to three.
    """
    require_enough_tasks(tasks.count, prior.batch_shape)
    d, likelihood, roles = prior.loc.shape[-1], prior.likelihood, prior.roles
    varying, fixed = list(roles.varying), list(roles.fixed)
    k, rows = len(varying), rows_of(tasks, roles)
    centre = prior.loc.double()
    unit = _unit(prior.precision.double(), rows, varying, fixed, prior.initial_scale)
    # rows in those units, once
    base = Rows(unit.mT @ rows.x, rows.y, rows.offset + rows.times(centre.expand(len(rows.y), d)), rows.trials)
    x_varying, x_fixed = base.x[:, varying].contiguous(), base.x[:, fixed]

    def cov_root(vector: Tensor) -> Tensor:
        return scale_tril(vector[..., d : d + k], vector[..., d + k :])

    def evidence_of(vector: Tensor) -> Tensor:
        offset = base.offset + (vector[fixed] @ x_fixed) if fixed else base.offset
        rows = Rows(x_varying, base.y, offset, base.trials)
        loc = vector[varying].expand(len(base.y), k)
        precision = symmetric(torch.cholesky_inverse(cov_root(vector))).expand(len(base.y), k, k)
        shift = fit_mode(likelihood, rows, loc.detach(), precision.detach())
        if differentiated(vector):
            shift = differentiable(likelihood, rows, loc, precision, shift)
        return log_evidence(likelihood, rows, loc, precision, shift)[0]

    def evidence(vector: Tensor) -> Tensor:
        # draws one by one: each needs its own modes of all tasks, and the rows are not copied for it
        each = [evidence_of(v) for v in vector.reshape(-1, vector.shape[-1]).unbind()]
        return torch.stack(each).reshape(*vector.shape[:-1], len(base.y))

    inverse = torch.linalg.inv(unit)
    every = torch.tensor(varying + fixed).argsort()

    def build(vector: Tensor) -> Any:
        of_varying = symmetric(torch.cholesky_inverse(cov_root(vector)))
        of_fixed = torch.full((len(fixed),), KNOWN**-2).to(unit).diag_embed().expand(*vector.shape[:-1], -1, -1)
        precision = _block_diagonal(of_varying, of_fixed)[..., every, :][..., every]
        precision = symmetric(inverse.mT @ precision @ inverse)
        return type(prior)(centre + vector[..., :d] @ unit.mT, precision, columns=prior.columns).to(prior.loc)

    largest = math.log(LARGEST_RATIO)
    entries = [
        *(Hyperparameter(f"loc[{i}]", 0.0, 2.0) for i in range(d)),
        *(Hyperparameter(f"log_scale[{i}]", 0.0, 2.0, largest, SAME_WEIGHT) for i in varying),
        *(Hyperparameter(f"below_diagonal[{i}]", 0.0, 1.0, LARGEST_TILT, TOGETHER) for i in range(k * (k - 1) // 2)),
    ]
    return Hyperparameters(entries, evidence, build, float(tasks.count.sum()))


def _unit(precision: Tensor, rows: Rows, varying: list[int], fixed: list[int], scale: float) -> Tensor:
    """U `(d, d)`: that of the weights which vary, given the others, and the weak prior's of those which do not."""
    unit = torch.zeros_like(precision)
    root = factor(precision[varying][:, varying])
    of_varying = torch.linalg.solve_triangular(root.mT, torch.eye(len(varying)).to(root), upper=True)
    unit[torch.tensor(varying)[:, None], torch.tensor(varying)] = of_varying
    if fixed:
        square = rows.x[:, fixed].square().sum((0, 2)) / (rows.trials > 0).sum().clamp(min=1)
        unit[fixed, fixed] = scale / square.where(square > 0, 1.0).sqrt()
    return unit


def _block_diagonal(first: Tensor, second: Tensor) -> Tensor:
    """`(*batch, a + b, a + b)` from `(*batch, a, a)` and `(*batch, b, b)`."""
    a, b = first.shape[-1], second.shape[-1]
    above = torch.cat([first, first.new_zeros(*first.shape[:-1], b)], -1)
    return torch.cat([above, torch.cat([second.new_zeros(*second.shape[:-1], a), second], -1)], -2)
