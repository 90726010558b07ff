"""Any posterior that knows f jointly, as a BoTorch model: its acquisition functions and optimisers do the rest."""

import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeVar

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import FantasizeMixin, Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from botorch.sampling.pathwise.posterior_samplers import DrawMatheronPaths
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood
from jaxtyping import Float
from linear_operator import to_linear_operator
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.fields import TensorFields
from bayesmeta.numerics.gradients import gradients, ordinary
from bayesmeta.protocol import Joint, Marginal
from bo.surrogate.matheron_paths import MatheronPaths
from bo.surrogate.mixture_posterior import MixturePosterior, joint_of_each, marginal_of_each, variances

__all__ = ["Surrogate"]

D = TypeVar("D", bound=Distribution)
OF_ROWS = ("train_inputs", "train_targets", "likelihood")  # torch asks `__getattr__` where a property has none


class Surrogate(Model, FantasizeMixin):
    """A posterior of one output as a BoTorch `Model`, which is evaluated without noise unless noise is asked for.

    Of a mixture of hypotheses BoTorch sees draws of the mixture, and its mean and covariance (`MixturePosterior`). So
    acquisitions by Monte Carlo (`qLogNoisyExpectedImprovement` and the like) and those that need means alone
    (`qKnowledgeGradient`) average over hypotheses. Those in closed form take the normal of the same mean and variance
    instead, which is far from the mixture where hypotheses disagree: `LogExpectedImprovement` is off by one unit of log
    on average, after twenty rows of real tuning tasks. `MixtureLogExpectedImprovement` is exact.

    BoTorch's constants (the temperatures of its acquisitions, the least variance) suit outputs of order one: give it a
    posterior over such, as over standardised outputs or normal scores. The posterior decides dtype and device.
    Argument names are BoTorch's: X is our `x`, Y is `y` with a last axis of 1.

    Args:
        task_posterior: a prior, or what `condition` made of one, whose `joint` is a multivariate normal or a
            mixture of them.
        rows: what it was conditioned on, for acquisitions that ask a model for its `train_inputs`. None takes the rows
            that the posterior keeps, as Gaussian processes and mixtures of them do.

    Raises:
        TypeError: it has no `joint`.
        ValueError: its rows have vectors of outputs.
    """

    def __init__(self, task_posterior: Joint, rows: Data | None = None) -> None:
        super().__init__()
        name = type(task_posterior).__name__
        if not isinstance(task_posterior, Joint):
            raise TypeError(f"task_posterior must have a method `joint`, as in bayesmeta.protocol.Joint; got {name}")
        if task_posterior.event_shape:
            raise ValueError(f"Surrogate is for one output; {name} has event_shape {tuple(task_posterior.event_shape)}")
        with gradients():  # acquisitions are climbed by their gradients
            self.task_posterior = ordinary(task_posterior)
        self.rows = _rows_of(self.task_posterior) if rows is None else rows

    def __repr__(self) -> str:
        return f"Surrogate of {self.task_posterior!r}"

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return self.task_posterior.batch_shape

    @property
    def train_inputs(self) -> tuple[Tensor]:
        """Rows that were conditioned on, `(*b, n, d)`, as BoTorch's own models have them."""
        return (self._rows().x,)

    @property
    def train_targets(self) -> Tensor:
        """Their outcomes, `(*b, n)`."""
        return self._rows().y

    @property
    def likelihood(self) -> GaussianLikelihood:
        """Normal noise with the variance that `predict` adds at a row that was conditioned on."""
        x = self._rows().x[..., :1, :]
        _, noisy = self._of_each(x, noisy=True)
        _, clean = self._of_each(x, noisy=False)
        likelihood = GaussianLikelihood(noise_constraint=GreaterThan(0.0)).to(x)
        likelihood.noise = (variances(noisy) - variances(clean)).mean().clamp(min=torch.finfo(x.dtype).eps)
        return likelihood

    def subset_output(self, idcs: Sequence[SupportsIndex]) -> "Surrogate":
        """The model itself, whose one output is all that can be asked for."""
        if list(idcs) not in ([0], [-1]):
            raise _no_such_output(idcs)
        return self

    def posterior(  # type: ignore[override]  # BoTorch's two base classes disagree
        self,
        X: Float[Tensor, "*b q d"],
        output_indices: Sequence[SupportsIndex] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """f at q points together, `(*b, q, 1)`, b being broadcast with `batch_shape`.

        Args:
            X: `(*b, q, d)`.
            output_indices: None, or one index, whichever: of several models in a list each is asked for its place.
            observation_noise: add the noise of one row that `predict` knows, or these variances, `(*b, q, 1)`.
            posterior_transform: applied to f under each hypothesis, if that gives a normal, else to their mixture.

        Raises:
            IndexError: several outputs are asked for.
            TypeError: the joint is neither a multivariate normal nor a mixture of them.
            ValueError: `observation_noise` has no last axis of 1.
        """
        if output_indices is not None and len(output_indices) != 1:
            raise _no_such_output(output_indices)
        log_weights, each = self._of_each(X, noisy=observation_noise is True)
        if isinstance(observation_noise, Tensor):
            each = _with_noise(each, _of_output("observation_noise", observation_noise)[..., None, :])
        if posterior_transform is None:
            return MixturePosterior(log_weights, each)
        transformed = posterior_transform(posterior=GPyTorchPosterior(each), X=X[..., None, :, :])
        if isinstance(transformed, GPyTorchPosterior):
            return MixturePosterior(log_weights, transformed.distribution)
        return posterior_transform(posterior=MixturePosterior(log_weights, each), X=X)

    def forward(self, X: Float[Tensor, "*b q d"]) -> MultivariateNormal:
        """f at q points together as GPyTorch gives it: `qLowerBoundMaxValueEntropy` asks for this."""
        return MixturePosterior(*self._of_each(X, noisy=False)).distribution

    def condition_on_observations(  # type: ignore[override]  # there is no option for BoTorch's **kwargs to pass
        self, X: Float[Tensor, "*b n d"], Y: Tensor
    ) -> "Surrogate":
        """The model after n more noisy rows; the batches of X, Y and the model are broadcast.

        Args:
            X: `(*b, n, d)`.
            Y: `(*c, n, 1)`.

        Raises:
            ValueError: Y has no last axis of 1, or not as many rows as X.
        """
        y = _of_output("Y", Y)
        batch = torch.broadcast_shapes(X.shape[:-2], y.shape[:-1], self.batch_shape)
        rows = Data.of(X.expand(*batch, *X.shape[-2:]), y.expand(*batch, y.shape[-1]))
        known = self.rows
        return Surrogate(self.task_posterior.condition(rows), rows if known is None else known + rows)

    def get_fantasy_model(self, inputs: Float[Tensor, "*b n d"], targets: Float[Tensor, "*c n"]) -> "Surrogate":
        """GPyTorch's name for it, by which `ModelListGP` conditions each of its models."""
        return self.condition_on_observations(inputs, targets[..., None])

    def fantasize(  # type: ignore[override]
        self,
        X: Tensor,
        sampler: MCSampler,
        observation_noise: Tensor | None = None,
        *,
        propagate_grads: bool = True,
    ) -> "Surrogate":
        """One model per draw of noisy outcomes at X, with batch_shape `(draws, *b)`.

        Args:
            X: `(*b, n, d)`.
            sampler: of the outcomes.
            observation_noise: variances to draw outcomes with, `(*b, n, 1)`, in place of what `predict` knows.
            propagate_grads: BoTorch's; gradients with respect to X reach the new model either way.
        """
        if not X.shape[-2]:  # of nothing there is one outcome, and samplers know none
            batch = torch.broadcast_shapes(X.shape[:-2], self.batch_shape)
            return self.condition_on_observations(X, X.new_zeros(*sampler.sample_shape, *batch, 0, 1))
        noise = True if observation_noise is None else observation_noise
        return self.condition_on_observations(X, sampler(self.posterior(X, observation_noise=noise)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Surrogate":
        """What torch does for `to`, `double` and the like: posterior and rows follow, if they are of bayesmeta."""
        with gradients():
            self.task_posterior, self.rows = _moved(self.task_posterior, fn), _moved(self.rows, fn)
        return super()._apply(fn, recurse)

    def _rows(self) -> Data:
        if self.rows is None:
            raise AttributeError("there are no rows")  # `__getattr__` says more
        return self.rows

    def __getattr__(self, name: str) -> Any:
        if name in OF_ROWS:
            raise AttributeError(
                f"{name} needs the rows that were conditioned on, which {type(self.task_posterior).__name__} does not "
                "keep: give them, Surrogate(posterior, rows)"
            )
        return super().__getattr__(name)

    def _of_each(self, X: Tensor, *, noisy: bool) -> tuple[Tensor, MultivariateNormal]:
        """Log weights `(*b, hypotheses)`, and f, or y, at the points of each batch under each hypothesis."""
        posterior = self.task_posterior
        x = X.expand(*torch.broadcast_shapes(X.shape[:-2], self.batch_shape), *X.shape[-2:])
        if x.shape[-2] == 1 and isinstance(posterior, Marginal):
            return self._of_single_points(posterior.predict if noisy else posterior.marginal, x[..., 0, :])
        log_weights, each = self._known(joint_of_each, posterior.joint(x))
        if noisy:
            _, outcome = self._known(marginal_of_each, posterior.predict(x))
            # rounding can leave a noise just below zero
            each = _with_noise(each, (outcome.variance - variances(each)).clamp(min=0.0))
        return log_weights, each

    def _of_single_points(
        self, marginal: Callable[[Tensor], Distribution], x: Float[Tensor, "*b d"]
    ) -> tuple[Tensor, MultivariateNormal]:
        """The same for q = 1: points of many batches are as many rows of one task, which costs a fraction of joints."""
        num_extra = x.ndim - 1 - len(self.batch_shape)
        rows = x.reshape(math.prod(x.shape[:num_extra]), *x.shape[num_extra:]).movedim(0, -2)
        log_weights, each = self._known(marginal_of_each, marginal(rows))
        mean, variance = (m.movedim(-1, 0).reshape(*x.shape[:-1], -1, 1) for m in (each.mean, each.variance))
        return log_weights, MultivariateNormal(mean, to_linear_operator(variance[..., None]))

    def _known(self, of_each: Callable[[Distribution], tuple[Tensor, D] | None], f: Distribution) -> tuple[Tensor, D]:
        parts = of_each(f)
        if parts is None:
            raise TypeError(
                f"Surrogate needs a joint that is a multivariate normal, or a mixture of them, and marginals likewise; "
                f"{type(self.task_posterior).__name__} has a {type(f).__name__}"
            )
        return parts


def _rows_of(posterior: Any) -> Data | None:
    """Those that a posterior of one task keeps, or the hypotheses that it mixes, which have all seen the same."""
    if posterior.batch_shape:
        return getattr(posterior, "rows", None)
    while (inner := getattr(posterior, "components", None)) is not None:
        posterior = inner
    rows = getattr(posterior, "rows", None)
    if rows is not None:
        for _ in rows.batch_shape:
            rows = Data(rows.x[0], rows.y[0], rows.mask[0])
    return rows


@DrawMatheronPaths.register(Surrogate)  # type: ignore[untyped-decorator]
def _draw_paths(model: Surrogate, *, sample_shape: torch.Size, **strategies: Any) -> MatheronPaths:
    """What `PathwiseThompsonSampling` and `get_optimal_samples` ask for."""
    return MatheronPaths(model.task_posterior, sample_shape)


def _with_noise(f: MultivariateNormal, noise_var: Tensor) -> MultivariateNormal:
    """Independent noise of variance `(*b, hypotheses, q)` added to each point."""
    noise_var = noise_var.expand(f.mean.shape)
    return MultivariateNormal(f.mean, f.lazy_covariance_matrix.add_diagonal(noise_var))


def _moved(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """`value` with the dtype and on the device that `fn` gives its tensors."""
    if not isinstance(value, TensorFields):
        return value
    like = fn(torch.empty((), dtype=value.dtype, device=value.device))
    return value if (like.dtype, like.device) == (value.dtype, value.device) else value.to(like.device, like.dtype)


def _of_output(name: str, values: Tensor) -> Tensor:
    """Without the axis of outputs; one that was left out would be taken from the rows."""
    if values.ndim < 2 or values.shape[-1] != 1:
        raise ValueError(
            f"{name} must have shape (*b, n, 1), with an axis for the one output; got {tuple(values.shape)}. "
            f"Try {name}.unsqueeze(-1) if it has none"
        )
    return values[..., 0]


def _no_such_output(indices: Sequence[SupportsIndex]) -> IndexError:
    return IndexError(f"a Surrogate has one output, number 0; got {[int(index) for index in indices]}")
