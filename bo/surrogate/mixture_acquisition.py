"""BoTorch's log expected improvement, exact for a mixture of hypotheses: the log of the weighted mean of theirs."""

import torch
from botorch.acquisition.analytic import AnalyticAcquisitionFunction, LogExpectedImprovement
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.utils.transforms import t_batch_mode_transform
from jaxtyping import Float
from torch import Tensor

from bo.surrogate.mixture_posterior import MixturePosterior
from bo.surrogate.model import Surrogate

__all__ = ["MixtureLogExpectedImprovement"]


class MixtureLogExpectedImprovement(AnalyticAcquisitionFunction):
    """log E[max(f(x) - best_f, 0)] of single points, f being a mixture; with one hypothesis `LogExpectedImprovement`.

    `LogExpectedImprovement` itself takes the normal with the mixture's mean and variance. Where hypotheses disagree,
    most of the improvement may be that of one which is unlikely, and the tail of that normal knows nothing of it.

    Args:
        model: whose posterior it is.
        best_f: the best value so far.
        posterior_transform: of each hypothesis.
        maximize: else what is expected below `best_f` counts.

    Raises:
        TypeError: when it is called, and the posterior is not one of normals.
    """

    best_f: Tensor

    def __init__(
        self,
        model: Surrogate,
        best_f: float | Tensor,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        super().__init__(model=model, posterior_transform=posterior_transform)
        self.register_buffer("best_f", torch.as_tensor(best_f))
        self.maximize = maximize

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]  # BoTorch annotates methods of its base class
    def forward(self, X: Float[Tensor, "*b 1 d"]) -> Tensor:
        posterior = self.model.posterior(X, posterior_transform=self.posterior_transform)
        if not isinstance(posterior, MixturePosterior):
            raise TypeError(
                "MixtureLogExpectedImprovement needs a Surrogate, and a posterior_transform (if any) that turns "
                f"normals into normals; got a {type(posterior).__name__}"
            )
        each = LogExpectedImprovement(_OfEach(posterior), self.best_f[..., None], maximize=self.maximize)
        return (posterior.log_weights + each(X[..., None, :, :])).logsumexp(-1)


class _OfEach(Model):
    """The hypotheses of a posterior that is known already, as a batch of models."""

    def __init__(self, mixture: MixturePosterior) -> None:
        super().__init__()
        self.mixture = mixture

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return self.mixture.each.batch_shape

    def posterior(self, X: Tensor, *args: object, **kwargs: object) -> Posterior:
        return GPyTorchPosterior(self.mixture.each)
