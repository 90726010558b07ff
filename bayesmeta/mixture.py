r"""Several hypotheses about a task at once: a mixture of posteriors, each weighted by its evidence.

With components $k$ of weight $w_k$, the posterior after rows $D$ is the mixture of the components' posteriors with
weights $w_k\, p_k(D) / \sum_j w_j\, p_j(D)$. A component may be a mixture itself.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.distributions.link_marginals import drawn_on_link
from bayesmeta.distributions.mixture import MixtureDistribution, pick
from bayesmeta.doors import Draws
from bayesmeta.fields import TensorFields
from bayesmeta.protocol import Functions, Joint, Marginal, Posterior, Weighable
from bayesmeta.random import categorical

__all__ = ["Mixture", "MixtureDistribution", "MixtureFunctions"]

ROUNDING = 1e-4  # of the sum of weights: float32 weights of many hypotheses are no more exact
# distributions are told one parameter of those that say the same
SAID_BY = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}


@runtime_checkable
class Selectable(Functions, Protocol):
    """Draws of which some can be left behind: what is not evaluated costs nothing."""

    def select(self, index: Tensor) -> Functions:
        """Functions of one entry for each draw: `index` `(draws, *batch)` is of the last axis of the batch."""
        ...


M = TypeVar("M", bound="Mixture")  # rather than typing.Self, which beartype cannot check inside undecorated classes


@dataclass(frozen=True, eq=False)
class Mixture(TensorFields):
    """Hypotheses along the last batch axis of `components`, and their log weights.

    Args:
        components: any posterior with `log_evidence`, of batch_shape `(*batch, hypotheses)`.
        log_weights: normalised over the last axis.

    Raises:
        ValueError: there is not one weight per component, or the weights do not add to one.
    """

    components: Weighable
    log_weights: Float[Tensor, "*batch hypotheses"]

    def __post_init__(self) -> None:
        if not self.components.batch_shape or self.log_weights.shape[-1] != self.components.batch_shape[-1]:
            raise ValueError(
                f"log_weights must have one entry per component; got {tuple(self.log_weights.shape)} "
                f"for components of batch_shape {tuple(self.components.batch_shape)}"
            )
        total = self.weights.sum(-1)
        if not bool(((total - 1.0).abs() < ROUNDING).all()):
            raise ValueError(
                f"log_weights must be logarithms of weights that add to one; these add to {total.max().item():.4g}. "
                "Try log_weights.log_softmax(-1)"
            )

    @classmethod
    def uniform(cls, components: Weighable) -> "Mixture":
        """All components equally likely; weights are in float64 on the CPU, and `to` moves them."""
        size = components.batch_shape[-1] if components.batch_shape else 1
        return cls(components, torch.full((size,), 1.0 / size, dtype=torch.float64).log())

    @property
    def batch_shape(self) -> torch.Size:
        return self.components.batch_shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.components.event_shape

    def _title(self) -> str:
        number = self.log_weights.shape[-1]
        return f"of {number} {type(self.components).__name__}{super()._title()}"

    def _parts(self) -> dict[str, Any]:
        return {"weights": self.weights, "components": self.components}

    @property
    def weights(self) -> Tensor:
        """Probabilities of the hypotheses, `(*batch, hypotheses)`."""
        return self.log_weights.exp()

    def __getitem__(self, index: slice | Int64[Tensor, " chosen"]) -> "Mixture":
        """Some entries of the first axis of the batch; without a batch, some of the hypotheses, given that one is true.

        The components must have a `__getitem__` that does the same.
        """
        components = self.components[index]
        if not self.batch_shape:
            return self._replace(components=components, log_weights=self.log_weights[index].log_softmax(-1))
        is_shared = self.log_weights.ndim <= len(self.batch_shape) or self.log_weights.shape[0] == 1
        return self._replace(
            components=components, log_weights=self.log_weights if is_shared else self.log_weights[index]
        )

    def leading(self, mass: float = 0.95, most: int = 8) -> "Mixture":
        """The likeliest hypotheses, of a mixture without batch: as few as hold `mass`, and no more than `most`.

        What is predicted differs by no more than what the others would have added, and costs less.

        Raises:
            ValueError: there is a batch.
        """
        if self.batch_shape:
            raise ValueError(f"leading is of one mixture; got a batch of shape {tuple(self.batch_shape)}")
        weights, order = self.weights.sort(descending=True)
        num = int((weights.cumsum(-1) < mass).sum()) + 1
        return self[order[: min(num, most)]]

    def condition(self: M, data: Data | Statistics) -> M:
        """Condition every component, and weigh each by its evidence.

        Args:
            data: rows that every hypothesis sees; its tasks broadcast with `batch_shape`.
        """
        each = _for_each(data)
        log_weights = self.log_weights + self.components.log_evidence(each)
        return self._replace(components=self.components.condition(each), log_weights=log_weights.log_softmax(-1))

    def predict(self, x: Tensor) -> MixtureDistribution:
        """p(y | x) at each row, averaged over hypotheses."""
        return self._mixed(self.components.predict(x.unsqueeze(-3)))

    def marginal(self, x: Tensor) -> MixtureDistribution:
        """p(f(x)) at each row, noise-free, where the components have it."""
        return self._mixed(cast(Marginal, self.components).marginal(x.unsqueeze(-3)))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Functions:
        """Draws, each of one hypothesis drawn by weight."""
        index = categorical(num_draws, self.log_weights.expand(self.components.batch_shape), generator=generator)
        functions = cast(Posterior, self.components).sample(num_draws, generator=generator)
        return functions.select(index) if isinstance(functions, Selectable) else MixtureFunctions(functions, index)

    def joint(self, x: Tensor) -> MixtureDistribution:
        """f at all rows together, noise-free, where the components have it."""
        return MixtureDistribution(self.log_weights, cast(Joint, self.components).joint(x.unsqueeze(-3)), -1)

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log of the weighted mean of the components' evidence, one number per task."""
        return (self.log_weights + self.components.log_evidence(_for_each(data))).logsumexp(-1)

    def _mixed(self, each: Distribution) -> MixtureDistribution:
        # the batch of a prediction ends in rows, the axis before them is that of the hypotheses
        return MixtureDistribution(self.log_weights[..., None], each, -2)


@dataclass(frozen=True, eq=False)
class MixtureFunctions(Draws):
    """Draws of all hypotheses, of which each draw keeps its own: `index` is `(draws, *batch)`."""

    functions: Functions
    index: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return pick(self.functions(x.unsqueeze(-3)), self.index, self.index.ndim)

    def link(self, x: Tensor) -> Tensor:
        """On the scale of the hypotheses' link, where they have one."""
        return pick(drawn_on_link(self.functions, x.unsqueeze(-3)), self.index, self.index.ndim)

    def predict(self, x: Tensor) -> Distribution:
        each = self.functions.predict(x.unsqueeze(-3))
        names = [name for name in each.arg_constraints if SAID_BY.get(name) not in each.arg_constraints]
        params = {name: pick(getattr(each, name), self.index, self.index.ndim) for name in names}
        family: Any = type(each)
        return family(**params)


def _for_each(data: Data | Statistics) -> Data | Statistics:
    """The same rows for every hypothesis: one more batch axis, of size one."""
    if isinstance(data, Statistics):
        return data.unsqueeze()
    extra = None if data.task_x is None else data.task_x.unsqueeze(-2)
    return Data(data.x.unsqueeze(-3), data.y.unsqueeze(data.mask.ndim - 1), data.mask.unsqueeze(-2), extra)
