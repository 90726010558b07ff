"""Any posterior that knows f jointly, as a BoTorch model: its acquisition functions and optimisers do the rest."""

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import FantasizeMixin, Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator import to_linear_operator
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import MultivariateNormal as DenseMultivariateNormal

from bayesmeta.data import Data
from bayesmeta.hierarchy import MixtureDistribution
from bayesmeta.protocol import Joint

__all__ = ["Surrogate"]


class Surrogate(Model, FantasizeMixin):
    """A posterior of one output as a BoTorch `Model`, which is evaluated without noise unless noise is asked for.

    Of a mixture of hypotheses BoTorch sees the normal with its mean and covariance: exact in both, an approximation for
    acquisitions that look at the tails, for which `bo.expected_improvement` takes the mixture as it is.

    The posterior decides dtype and device. Argument names are BoTorch's: X is our `x`, Y is `y` with a last axis of 1.

    Args:
        task_posterior: a prior, or what `condition` made of one, whose `joint` is a multivariate normal or a
            mixture of them.

    Raises:
        TypeError: it has no `joint`.
        ValueError: its rows have vectors of outputs.
    """

    def __init__(self, task_posterior: Joint) -> None:
        super().__init__()
        name = type(task_posterior).__name__
        if not isinstance(task_posterior, Joint):
            raise TypeError(f"task_posterior must have a method `joint`, as in bayesmeta.protocol.Joint; got {name}")
        if task_posterior.event_shape:
            raise ValueError(f"Surrogate is for one output; {name} has event_shape {tuple(task_posterior.event_shape)}")
        self.task_posterior = task_posterior

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return self.task_posterior.batch_shape

    def posterior(  # type: ignore[override]  # BoTorch's two base classes disagree
        self,
        X: Float[Tensor, "*b q d"],
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """f at q points together, `(*b, q, 1)`, b being broadcast with `batch_shape`.

        Args:
            X: `(*b, q, d)`.
            output_indices: of no use, there being one output.
            observation_noise: add the noise of one row that `predict` knows, or these variances, `(*b, q, 1)`.
            posterior_transform: applied to the result.

        Raises:
            TypeError: the joint is neither a multivariate normal nor a mixture of them.
        """
        x = X.expand(*torch.broadcast_shapes(X.shape[:-2], self.batch_shape), *X.shape[-2:])
        latent = self._joint(x)
        if isinstance(observation_noise, Tensor):
            latent = _with_noise(latent, observation_noise[..., 0])
        elif observation_noise:
            latent = _with_noise(latent, self.task_posterior.predict(x).variance - latent.variance)
        result = GPyTorchPosterior(latent)
        return result if posterior_transform is None else posterior_transform(posterior=result, X=X)

    def condition_on_observations(  # type: ignore[override]  # there is no option for BoTorch's **kwargs to pass
        self, X: Float[Tensor, "*b n d"], Y: Float[Tensor, "*c n 1"]
    ) -> "Surrogate":
        """The model after n more noisy rows; the batches of X, Y and the model are broadcast."""
        batch = torch.broadcast_shapes(X.shape[:-2], Y.shape[:-2], self.batch_shape)
        rows = Data.of(X.expand(*batch, *X.shape[-2:]), Y[..., 0].expand(*batch, Y.shape[-2]))
        return Surrogate(self.task_posterior.condition(rows))

    def fantasize(  # type: ignore[override]
        self, X: Tensor, sampler: MCSampler, observation_noise: Tensor | None = None
    ) -> "Surrogate":
        """One model per draw of noisy outcomes at X, with batch_shape `(draws, *b)`."""
        noise = True if observation_noise is None else observation_noise
        return self.condition_on_observations(X, sampler(self.posterior(X, observation_noise=noise)))

    def _joint(self, x: Tensor) -> MultivariateNormal:
        joint = self.task_posterior.joint(x)
        gaussian = _gaussian(joint)
        if gaussian is None:
            raise TypeError(
                f"Surrogate needs a joint that is a multivariate normal, or a mixture of them; that of "
                f"{type(self.task_posterior).__name__} is a {type(joint).__name__}"
            )
        return gaussian


def _gaussian(joint: Distribution) -> MultivariateNormal | None:
    """The normal with the mean and covariance of `joint`: `joint` itself, unless it is a mixture; None for others."""
    if isinstance(joint, MultivariateNormal):
        return joint
    if isinstance(joint, DenseMultivariateNormal):
        return MultivariateNormal(joint.mean, joint.covariance_matrix)
    if not isinstance(joint, MixtureDistribution):
        return None
    each = _gaussian(joint.components)
    if each is None:
        return None
    weights, mean = joint.log_weights.exp()[..., None], joint.mean
    spread = each.mean - mean[..., None, :]
    cov = each.covariance_matrix + spread[..., :, None] * spread[..., None, :]
    return MultivariateNormal(mean, to_linear_operator((weights[..., None] * cov).sum(-3)))


def _with_noise(latent: MultivariateNormal, noise_var: Tensor) -> MultivariateNormal:
    """Independent noise of variance `(*b, q)` added to each point."""
    noise_var = noise_var.expand(latent.mean.shape)
    return MultivariateNormal(latent.mean, latent.lazy_covariance_matrix.add_diagonal(noise_var))
