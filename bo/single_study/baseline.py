"""The baseline without a past: BoTorch's Gaussian process and log expected improvement, after five Sobol points."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.random import seeded
from bo.single_study.botorch_fit import fit_single_task_gp
from bo.values import Value

if TYPE_CHECKING:
    from botorch.acquisition.acquisition import AcquisitionFunction
    from botorch.models import SingleTaskGP

__all__ = ["NUM_INITIAL", "fit_by_botorch", "log_expected_improvement", "scratch_acquisition"]

Fit = Callable[[Any], Any]  # a SingleTaskGP to the same, fitted

NUM_INITIAL = 5


def scratch_acquisition(x: Tensor, y: Tensor) -> Value:
    """`log_expected_improvement` as a value of points, without gradients."""
    acquire = log_expected_improvement(x, y)

    def value(points: Tensor) -> Tensor:
        with torch.no_grad():
            return acquire(points[:, None, :])

    return value


@with_gradients
def log_expected_improvement(x: Tensor, y: Tensor, *, fit: Fit = fit_single_task_gp) -> "AcquisitionFunction":
    """BoTorch's, of a `SingleTaskGP` (its defaults) fitted to rows `x` and standardised `y`, in float64.

    The defaults are strong: a log-normal prior puts lengthscales where the number of inputs asks for them.

    Args:
        fit: how to fit the model; `fit_by_botorch` is the one to compare times with.
    """
    from botorch.acquisition.analytic import LogExpectedImprovement
    from botorch.models import SingleTaskGP

    y = y.double()
    spread = y.std()
    target = (y - y.mean()) / (spread if spread > 0 else 1.0)
    with warnings.catch_warnings():
        # BoTorch warns of few rows, and of ones that are all alike
        warnings.simplefilter("ignore")
        model = SingleTaskGP(x.double(), target[:, None], outcome_transform=None)
        return LogExpectedImprovement(fit(model), target.max())


@with_gradients
def fit_by_botorch(model: "SingleTaskGP") -> "SingleTaskGP":
    """The same model by BoTorch's own fit, which is slower and may end in a worse mode.

    Raises:
        ModelFittingError: none of BoTorch's attempts at the fit converged.
    """
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    # a retried fit starts from draws of the global stream
    with seeded(Generator().manual_seed(0)):
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model
