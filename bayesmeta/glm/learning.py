r"""The hyperparameters of logistic and Poisson regressions: what a search or MCMC moves, and the evidence of tasks.

Where the columns of x span a constant, weights are those of centred and scaled columns (`bayesmeta.regression.frame`),
so that it does not matter where x lies. There they are $w = \text{loc}_0 + U v$, with U such that v has mean zero and
covariance I under the prior where the search starts. Unknown are the mean of v, the logs of its standard deviations,
and what ties its entries. So `loc[i]` of the constant is the level of the predictor at the mean of the other columns.

A weight that all tasks share has a mean only. Its unit is that of `initial`, two on the scale of the log odds (one for
a log rate) per standard deviation of its column, so that a prior which knows that weight can learn it anew.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesmeta.approximations.evidence import log_evidence
from bayesmeta.approximations.laplace import Rows, fit_mode
from bayesmeta.approximations.posterior_axes import Memory
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_enough_tasks
from bayesmeta.glm.predictor import rows_of
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import symmetric
from bayesmeta.regression.correlations import scale_tril
from bayesmeta.regression.frame import Frame
from bayesmeta.regression.weight_space import WeightSpace, weak_precision

if TYPE_CHECKING:  # which learns by these
    from bayesmeta.glm.model import Regression

__all__ = ["hyperparameters", "weak_prior"]

TOLERANCE = 1e-10  # of the search: points of the quadrature move with the hyperparameters, derivatives leave that out
FARTHEST = 20.0  # change of a predictor, per standard deviation of x, beyond which no row tells a larger one from it
SAME_WEIGHT = (
    "tasks do not differ in this weight by more than chance and are taken to share it, or, at the upper limit, "
    "differ more than any rows could show"
)
SEPARATED = (
    "rows of y that are all alike, or classes that this weight separates, are explained the better the larger it is, "
    "and no finite one explains them best; add rows, or a hyperprior"
)


def hyperparameters(prior: "Regression", tasks: Data) -> Hyperparameters:
    """Loc, log standard deviations, and what ties weights, in the coordinates that the module describes.

    Scales apart from correlations: each weight's scale has the same hyperprior, whatever the order of columns. Entries
    are numbered as `loc` is; weights that all tasks share have no `log_scale`, and `below_diagonal` ties the others.
    """
    require_enough_tasks(tasks.count, prior.batch_shape)
    likelihood, d = prior.likelihood, prior.loc.shape[-1]
    rows = rows_of(tasks, prior.roles)
    space = WeightSpace.of(_statistics(rows), prior.loc[:, None], prior.precision, prior.roles)
    varying, fixed = list(space.varying), list(space.fixed)
    unit = space.unit.clone()
    unit[fixed, fixed] = prior.initial_scale
    base = _from(space.loc[:, 0], unit, _in_frame(space.frame, rows))
    k, x_varying, x_fixed = len(varying), base.x[:, varying].contiguous(), base.x[:, fixed]

    memory = Memory()

    def evidence_of(vector: Tensor) -> Tensor:
        offset = base.offset + (vector[fixed] @ x_fixed) if fixed else base.offset
        rows = Rows(x_varying, base.y, offset, base.trials)
        loc = vector[varying].expand(len(base.y), k)
        root = scale_tril(vector[..., d : d + k], vector[..., d + k :])
        precision = symmetric(torch.cholesky_inverse(root)).expand(len(base.y), k, k)
        return log_evidence(likelihood, rows, loc, precision, memory)

    def evidence(vector: Tensor) -> Tensor:
        # draws one by one: each needs its own modes of all tasks, and the rows are not copied for it
        each = [evidence_of(v) for v in vector.reshape(-1, vector.shape[-1]).unbind()]
        return torch.stack(each).reshape(*vector.shape[:-1], len(base.y))

    def build(vector: Tensor) -> "Regression":
        loc = space.loc[:, 0] + vector[..., :d] @ unit.mT
        precision = space.precision(space.root(vector[..., d:]))
        return type(prior)(space.frame.leave(loc[..., None])[..., 0], precision, columns=prior.columns).to(prior.loc)

    entries = [*_loc_entries(unit, prior.initial_scale), *space.scale_entries(SAME_WEIGHT)]
    return Hyperparameters(entries, evidence, build, float(tasks.count.sum()), tolerance=TOLERANCE)


def weak_prior(rows: Rows, prior: "Regression", dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Loc and precision, float64: weak on the scale of x, about the weights that fit `rows` of all tasks as one.

    Args:
        prior: of the family, whose columns have their roles.
        dtype: of the rows, which says what counts as rounding.
    """
    frame = Frame.of(_statistics(rows), fixed=prior.roles.fixed, dtype=dtype)
    precision = weak_precision(frame) / prior.initial_scale**2
    back = frame.to_weights
    inside = symmetric(back.mT @ precision @ back)[None]
    loc = fit_mode(prior.likelihood, _in_frame(frame, rows), torch.zeros_like(inside[:, 0]), inside)
    return frame.leave(loc[0, :, None])[:, 0], precision


def _statistics(rows: Rows) -> Statistics:
    """Statistics of the inputs of all rows that have trials; outputs are zero, which no frame moves."""
    mask = rows.trials > 0
    return Statistics.of(Data(rows.x.mT, torch.zeros_like(rows.y), mask))


def _in_frame(frame: Frame, rows: Rows) -> Rows:
    """The rows with centred and scaled inputs."""
    real = (rows.trials > 0).to(rows.x)[:, None]
    x = (rows.x - frame.centre[:, None]) / frame.scale[:, None] * real
    if frame.pivot is not None:
        x[:, frame.pivot] = real[:, 0]
    return Rows(x, rows.y, rows.offset, rows.trials)


def _from(centre: Tensor, unit: Tensor, rows: Rows) -> Rows:
    """The rows for weights v, those of `rows` being centre + unit v."""
    offset = rows.offset + rows.times(centre.expand(len(rows.y), len(centre)))
    return Rows(unit.mT @ rows.x, rows.y, offset, rows.trials)


def _loc_entries(unit: Tensor, scale: float) -> list[Hyperparameter]:
    """A prior that is narrow where the search starts does not bound it: its unit is small, and its limit large."""
    limits = FARTHEST / unit.diagonal().clamp(max=scale)
    return [Hyperparameter(f"loc[{i}]", 0.0, 2.0, float(limit), SEPARATED) for i, limit in enumerate(limits)]
