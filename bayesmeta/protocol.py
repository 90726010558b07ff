"""What a prior is: the small protocols that policies, samplers and optimisers are written against.

A prior is a distribution over the functions that a family of tasks can have, and a posterior is that distribution
after some rows of one task; so a prior is a posterior that has seen no rows. A draw is a *function*: whoever evaluates
it knows nothing of weights, kernels or decoders. Each protocol is one capability, and a family has those that are true
of it; nothing raises `NotImplementedError`.

Shapes are draws, then tasks (`*batch`), then rows, then features or outputs (`*event`). A family without inputs takes
`x` with zero features, and accepts None for one new row.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics

__all__ = [
    "Additive",
    "ArmsByNumber",
    "Batched",
    "Density",
    "Evidence",
    "Expandable",
    "Functions",
    "Joint",
    "Learnable",
    "Marginal",
    "Posterior",
    "Predictive",
    "Weighable",
    "num_arms_of",
]

# a TypeVar rather than typing.Self, which beartype cannot check inside undecorated classes
P = TypeVar("P", bound="Predictive")
B = TypeVar("B", bound="Batched")
E = TypeVar("E", bound="Expandable")
L = TypeVar("L", bound="Learnable")


@runtime_checkable
class Functions(Protocol):
    """A bundle of draws. Evaluated anywhere, any number of times, these are the same draws."""

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), noise-free: x `(*batch, q, d)` to `(draws, *batch, q, *event)`."""
        ...

    def predict(self, x: Tensor) -> Distribution:
        """p(y | x, each draw)."""
        ...


@runtime_checkable
class Predictive(Protocol):
    """Marginal predictions, and learning from rows of a task."""

    @property
    def batch_shape(self) -> torch.Size:
        """The tasks."""
        ...

    @property
    def event_shape(self) -> torch.Size:
        """`()` for one number per row, `(d,)` for a vector."""
        ...

    def condition(self: P, data: Data) -> P:
        """The posterior after the rows of `data`: a new object, `self` is unchanged."""
        ...

    def predict(self, x: Tensor) -> Distribution:
        """p(y | x), noise included, marginal at each row. Deterministic."""
        ...


@runtime_checkable
class Marginal(Predictive, Protocol):
    """f at each row alone, noise-free: what expected improvement asks for."""

    def marginal(self, x: Tensor) -> Distribution:
        """p(f(x)) at each row: batch_shape `(*batch, q)`."""
        ...


@runtime_checkable
class Posterior(Predictive, Protocol):
    """Draws of whole functions: what Thompson sampling asks for."""

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Functions:
        """`num_draws` functions of each task."""
        ...


@runtime_checkable
class Joint(Posterior, Protocol):
    """f at all q rows together, noise-free: what batch acquisition asks for."""

    def joint(self, x: Tensor) -> Distribution:
        """p(f) at the q rows of each task: batch_shape `batch`, event_shape `(q,)`."""
        ...


@runtime_checkable
class Evidence(Predictive, Protocol):
    """The marginal likelihood of a task's rows: what weighs one hypothesis against another."""

    def log_evidence(self, data: Data) -> Tensor:
        """log p(rows), one number per task, shape `batch_shape`."""
        ...


@runtime_checkable
class Additive(Predictive, Protocol):
    """A family that needs only sums over the rows: it can be reduced, streamed, and updated in place.

    Each method that takes rows also takes these sums.
    """

    def condition(self: P, data: Data | Statistics) -> P: ...

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that the family knows of the rows, checked; statistics pass through."""
        ...


@runtime_checkable
class Batched(Protocol):
    """One object for a whole batch, of which entries can be taken."""

    @property
    def batch_shape(self) -> torch.Size:
        """Tasks, and whatever else the object is a batch of."""
        ...

    def __getitem__(self: B, index: Any) -> B:
        """Some entries: whole numbers, slices or tensors of them, one per axis of the batch from the first on."""
        ...


@runtime_checkable
class Expandable(Batched, Protocol):
    """One for each entry of a batch, which may become larger."""

    def expand(self: E, batch_shape: Sequence[int]) -> E:
        """The same for every entry of a larger batch."""
        ...


@runtime_checkable
class Weighable(Evidence, Batched, Protocol):
    """Priors side by side that evidence weighs: the components of a mixture, and draws of learned priors.

    `data` is what the family takes, rows or their sums too; what it does not take it refuses by a message of its own.
    """

    def condition(self: P, data: Any) -> P: ...

    def log_evidence(self, data: Any) -> Tensor: ...


@runtime_checkable
class ArmsByNumber(Protocol):
    """A family that knows arms by their number, which is the one input of a row."""

    @property
    def num_arms(self) -> int | None:
        """How many arms there are; None for a wrapper around a prior that knows none."""
        ...


@runtime_checkable
class Learnable(Predictive, Protocol):
    """A prior that can be learned from past tasks."""

    def fit(self: L, tasks: Data) -> L:
        """A new prior, learned from `tasks` and starting from `self`."""
        ...


@runtime_checkable
class Density(Protocol):
    """Explicit parameters: what MCMC asks for.

    Parameters travel as one unconstrained vector of length p per task, and `log_prob` holds the log-Jacobian, so a
    sampler needs no knowledge of supports. `constrain` names them in their natural form.
    """

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Unconstrained draws `(num_draws, *batch, p)`."""
        ...

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of unconstrained parameters `(..., *batch, p)`, Jacobian included."""
        ...

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        """The same parameters by name, in their natural space."""
        ...


def num_arms_of(prior: object) -> int | None:
    """How many arms a prior knows by number, None where it knows none."""
    return prior.num_arms if isinstance(prior, ArmsByNumber) else None
