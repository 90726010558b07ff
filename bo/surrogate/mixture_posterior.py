"""Weighted joint normals, one for each hypothesis about f, as one BoTorch posterior: its draws are of the mixture.

A draw belongs to one hypothesis, chosen by weight, and is a draw of that one at all points. So acquisitions that
average over draws average over hypotheses. Mean, variance and covariance are those of the mixture too; whatever looks
at these alone, as closed-form acquisitions do, sees the normal that has them.
"""

import torch
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator import to_dense, to_linear_operator
from linear_operator.operators import LinearOperator, RootLinearOperator
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.distributions import MultivariateNormal as DenseMultivariateNormal

from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.random import randn

__all__ = ["MixturePosterior", "joint_of_each", "marginal_of_each", "variances"]

JITTERS = (1e-10, 1e-8, 1e-6, 1e-4)  # of the largest variance, added to all


class MixturePosterior(GPyTorchPosterior):
    """f at q points under several hypotheses; with one of them alone, a joint normal like any other.

    A base sample has one normal number that chooses the hypothesis, by its quantile, where there are several, and then
    those of the joint normal. It gives the same draw wherever it is used: at other points, or with more of them.

    Args:
        log_weights: of the hypotheses, normalised over the last axis.
        each: f at the points under each, of batch_shape `(*b, hypotheses)`.
    """

    def __init__(self, log_weights: Float[Tensor, "*#b hypotheses"], each: MultivariateNormal) -> None:
        super().__init__(distribution=_moment_matched(log_weights.exp(), each))
        self.log_weights, self.each = log_weights, each

    @property
    def variance(self) -> Tensor:
        """Of f at each point, `(*b, q, 1)`; gpytorch's own has a least value, and complains of what is below."""
        return variances(self.distribution)[..., None]

    def quantile(self, value: Tensor) -> Tensor:
        """Of f at each point under the mixture, `(*b, q, 1)`, with an axis in front where there are several values."""
        if value.numel() > 1:
            return torch.stack([self.quantile(v) for v in value])
        at_points = self._at_points()
        level = value.reshape(()).expand(at_points.batch_shape)
        found = at_points.icdf(level).detach()
        # a step of Newton's, of length zero, has the slopes that the search for the quantile has not
        return (found - (at_points.cdf(found) - level) / at_points.log_prob(found).exp().detach())[..., None]

    def density(self, value: Tensor) -> Tensor:
        """At a value of f at each point, `(*b, q, 1)`, with an axis in front where there are several values."""
        if value.numel() > 1:
            return torch.stack([self.density(v) for v in value])
        at_points = self._at_points()
        return at_points.log_prob(value.reshape(()).expand(at_points.batch_shape)).exp()[..., None]

    def _at_points(self) -> MixtureDistribution:
        """f at each point alone."""
        return MixtureDistribution(self.log_weights[..., None], Normal(self.each.mean, variances(self.each).sqrt()), -2)

    @property
    def base_sample_shape(self) -> torch.Size:
        *batch, num_hypotheses = self.each.batch_shape
        return torch.Size([*batch, int(num_hypotheses > 1) + self.each.base_sample_shape[-1]])

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Draws `(*sample_shape, *b, q, 1)` from torch's global stream, as BoTorch's posteriors."""
        shape = torch.Size([1]) if sample_shape is None else sample_shape
        return self.rsample_from_base_samples(shape, randn((*shape, *self.base_sample_shape), like=self.mean))

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Draws `(*sample_shape, *b, q, 1)`, differentiable but for the choice of hypotheses."""
        base = base_samples.expand(*sample_shape, *self.base_sample_shape).reshape(-1, *self.base_sample_shape)
        if self.each.batch_shape[-1] == 1:
            draws = _draws(self.each, 0, base)
        else:
            draws = self._draws_of(self._chosen(base[..., 0]), base[..., 1:])
        return draws.reshape(*sample_shape, *draws.shape[1:], 1)

    def _chosen(self, normal: Float[Tensor, "draws *b"]) -> Tensor:
        """The hypothesis in whose part of the unit interval each quantile lies."""
        ends = self.log_weights.exp().cumsum(-1)[..., :-1]
        return (torch.special.ndtr(normal)[..., None] > ends).sum(-1)

    def _draws_of(self, chosen: Tensor, base: Tensor) -> Tensor:
        draws = base.new_zeros(*chosen.shape, *self.each.event_shape)
        for hypothesis in chosen.unique().tolist():
            here = chosen == hypothesis
            some = here.reshape(len(here), -1).any(-1)  # all batches choose alike, unless their weights differ
            draws[here] = _draws(self.each, hypothesis, base[some])[here[some]]
        return draws


def _moment_matched(weights: Tensor, each: MultivariateNormal) -> MultivariateNormal:
    """The normal with the mean and covariance of the mixture."""
    if each.batch_shape[-1] == 1:
        return MultivariateNormal(each.mean[..., 0, :], each.lazy_covariance_matrix[..., 0, :, :])
    weights = weights.to(each.mean)[..., None]
    mean = (weights * each.mean).sum(-2)
    spread = each.mean - mean[..., None, :]
    cov = each.covariance_matrix + spread[..., :, None] * spread[..., None, :]
    return MultivariateNormal(mean, to_linear_operator((weights[..., None] * cov).sum(-3)))


def _draws(each: MultivariateNormal, hypothesis: int, base: Float[Tensor, "draws *b r"]) -> Tensor:
    """Draws of one hypothesis, `(draws, *b, q)`."""
    root = _root(each.lazy_covariance_matrix[..., hypothesis, :, :])
    return each.mean[..., hypothesis, :] + (root @ base.movedim(0, -1)).movedim(-1, 0)


def _root(cov: LinearOperator) -> Tensor:
    """R with R R' = cov: what it was made of, or a Cholesky factor.

    Points that coincide, or nearly, make a covariance singular. The jitter for it is of the scale of f. Some is always
    there, or draws would jump where it sets in, and line searches fail; more comes only where it is needed, so that no
    point of a batch changes for its neighbours.
    """
    if isinstance(cov, RootLinearOperator):
        return cov.root.to_dense()
    dense = cov.to_dense()
    largest = dense.detach().diagonal(dim1=-2, dim2=-1).amax(-1)
    eye = torch.eye(dense.shape[-1], dtype=dense.dtype, device=dense.device)
    indefinite = torch.ones_like(largest)
    for jitter in JITTERS:
        dense = dense + (jitter * largest * indefinite)[..., None, None] * eye
        factor, info = torch.linalg.cholesky_ex(dense)
        indefinite = (info > 0).to(largest)
        if not bool(indefinite.any()):
            return factor
    return cholesky(dense, "covariance of f")


def variances(f: MultivariateNormal) -> Tensor:
    """The diagonal of the covariance; rounding can leave it just below zero."""
    return f.lazy_covariance_matrix.diagonal(dim1=-1, dim2=-2).clamp(min=0.0)


def joint_of_each(f: Distribution) -> tuple[Tensor, MultivariateNormal] | None:
    """Log weights `(*b, hypotheses)`, and f at q points under each hypothesis of a mixture of any depth.

    A normal that is no mixture is one hypothesis. None where there are other distributions.
    """
    log_weights, leaf, depth = _unfolded(f)
    if not isinstance(leaf, DenseMultivariateNormal):  # of which gpytorch's is one
        return None
    cov = leaf.lazy_covariance_matrix if isinstance(leaf, MultivariateNormal) else leaf.covariance_matrix
    if isinstance(cov, RootLinearOperator):
        joined: LinearOperator = RootLinearOperator(_joined(cov.root.to_dense(), depth, 2))
    else:
        joined = to_linear_operator(_joined(to_dense(cov), depth, 2))
    mean = _joined(leaf.mean, depth, 1)
    return log_weights.to(mean), MultivariateNormal(mean, joined)


def marginal_of_each(f: Distribution) -> tuple[Tensor, Normal] | None:
    """The same for f at each point alone, of batch_shape `(*b, hypotheses, q)`."""
    log_weights, leaf, depth = _unfolded(f)
    if not isinstance(leaf, Normal):
        return None
    mean = _joined(leaf.mean, depth, 1)
    return log_weights.to(mean), Normal(mean, _joined(leaf.stddev, depth, 1))


def _unfolded(f: Distribution) -> tuple[Tensor, Distribution, int]:
    """Log weights of all hypotheses, what they are mixtures of, and how many axes of its batch are hypotheses."""
    log_weights, depth = torch.zeros(()), 0
    while isinstance(f, MixtureDistribution):
        # the batch of joints ends in hypotheses, that of marginals in points
        own = f.log_weights if f.axis == -1 else f.log_weights[..., 0]
        log_weights, f, depth = log_weights[..., None] + own, f.components, depth + 1
    return log_weights.flatten(-depth) if depth else log_weights[None], f, depth


def _joined(each: Tensor, depth: int, num_last: int) -> Tensor:
    """One axis of hypotheses in place of `depth` ones, which `num_last` axes follow."""
    return each.flatten(-depth - num_last, -1 - num_last) if depth else each.unsqueeze(-1 - num_last)
