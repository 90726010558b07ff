"""The baseline that knows no past: BoTorch's Gaussian process and log expected improvement, after five Sobol points."""

import warnings

import torch
from torch import Tensor

from bayesmeta.data import Data
from bo.sampler import PointSampler
from bo.search import Value, climb
from bo.space import SearchSpace

__all__ = ["NUM_INITIAL", "ScratchSampler", "scratch_acquisition"]

NUM_INITIAL = 5


class ScratchSampler(PointSampler):
    """A Gaussian process from scratch as an Optuna sampler, searching the same candidates as `MetaSampler`."""

    def __init__(self, space: SearchSpace, *, maximize: bool, seed: int | None = None) -> None:
        super().__init__(space, seed=seed)
        self._sign = 1.0 if maximize else -1.0

    def _propose(self, rows: Data, taken: Tensor) -> Tensor:
        if len(taken) < NUM_INITIAL:
            return self._sobol[len(taken)]
        better = self._sign * rows.y
        value = scratch_acquisition(rows.x, better)
        return climb(value, self.space, self._sobol, rows.x, better, taken, generator=self._generator)


def scratch_acquisition(x: Tensor, y: Tensor) -> Value:
    """Log expected improvement of a `SingleTaskGP` (BoTorch's defaults) fitted to rows `x`, standardised `y`."""
    from botorch.acquisition.analytic import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    spread = y.std()
    target = (y - y.mean()) / (spread if spread > 0 else 1.0)
    with warnings.catch_warnings():
        # BoTorch warns of retries in its optimiser; the retried fit is what counts
        warnings.simplefilter("ignore")
        model = SingleTaskGP(x, target[:, None], outcome_transform=None)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquire = LogExpectedImprovement(model, target.max())

    def value(points: Tensor) -> Tensor:
        with torch.no_grad():
            return acquire(points[:, None, :])

    return value
