r"""Diag-LinUCB: linear weights whose covariance is kept diagonal, so that updates add up whenever they come.

A context is the weight $w_c$ with which a user belongs to each cluster c. Each edge between an arm and a cluster has a
precision $d$ and a shift $b$, and a reward r adds $w_c^2 / v$ and $r w_c / v$ to them: sums, which machines can keep
apart and exchange late, in any order. The score of an arm is

$$ \sum_c w_c \frac{b_c}{d_c} + \alpha \sqrt{\sum_c \frac{w_c^2}{d_c}}. $$

That is a linear regression which takes each cluster for the only one, exact where contexts name one cluster.

Source: Yi et al., Online Matching: a real-time bandit system for large-scale recommendations (2023).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bandits.beliefs.wrapped import entries
from bandits.policies.upper_bounds import LinUCB
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_finite, require_positive
from bayesmeta.fields import TensorFields
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.random import randn

__all__ = ["DiagLinUCB", "DiagonalWeights", "EdgeSums"]


@dataclass(frozen=True, eq=False)
class DiagonalWeights(TensorFields):
    """Independent normal values of the edges of an arm.

    Args:
        loc: `(*batch, clusters)`.
        precision: one over the variance of each, of the same shape.
        noise_var: of a reward, `(*batch,)`.
    """

    loc: Tensor
    precision: Tensor
    noise_var: Tensor

    def __post_init__(self) -> None:
        require_finite("loc", self.loc)
        require_positive("precision", self.precision)
        require_positive("noise_var", self.noise_var)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "DiagonalWeights":
        """Each edge after the rows of `data`, as if it were the only one."""
        require_columns(data, num_inputs=self.loc.shape[-1], event_shape=())
        d, raw = self.loc.shape[-1], Statistics.of(data).raw_second
        noise_var = self.noise_var.double()[..., None]
        precision = self.precision.double() + raw.diagonal(dim1=-2, dim2=-1)[..., :d] / noise_var
        shift = self.precision.double() * self.loc.double() + raw[..., :d, d] / noise_var
        loc, noise_var = (shift / precision).to(self.loc), self.noise_var.expand(shift.shape[:-1])
        return DiagonalWeights(loc, precision.to(self.loc), noise_var)

    def predict(self, x: Tensor) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        marginal = self.marginal(x)
        return Normal(marginal.mean, (marginal.variance + self.noise_var[..., None]).sqrt())

    def marginal(self, x: Tensor) -> Normal:
        """p(x'w) at each row, noise-free.

        Raises:
            ValueError: x has not a column for each cluster.
        """
        if x.shape[-1] != self.loc.shape[-1]:
            raise ValueError(f"x must have a column for each of {self.loc.shape[-1]} clusters; got {x.shape[-1]}")
        var = (x.square() / self.precision[..., None, :]).sum(-1)
        return Normal((x * self.loc[..., None, :]).sum(-1), var.clamp(min=torch.finfo(var.dtype).tiny).sqrt())

    def online(self, batch_shape: Sequence[int]) -> "OnlineDiagonal":
        return OnlineDiagonal(self, batch_shape)


class OnlineDiagonal:
    """Precision and shift of each edge, in float64."""

    def __init__(self, prior: DiagonalWeights, batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self._prior = prior.expand(batch_shape)
        self.precision = self._prior.precision.double().clone(memory_format=torch.contiguous_format)
        self.shift = (self._prior.precision.double() * self._prior.loc.double()).contiguous()

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        x, scale = x.double(), 1.0 / self._prior.noise_var[index].double()
        self.precision.index_put_(index, x.square() * scale[:, None], accumulate=True)
        self.shift.index_put_(index, x * (y.double() * scale)[:, None], accumulate=True)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        marginal = self.marginal(x, task)
        return marginal.mean + marginal.stddev * randn(marginal.batch_shape, like=marginal.mean, generator=generator)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self.posterior(entries(task, len(x))).marginal(x)

    def posterior(self, index: Any = ...) -> DiagonalWeights:
        precision, like = self.precision[index], self._prior.loc
        loc = (self.shift[index] / precision).to(like)
        return self._prior[index]._replace(loc=loc, precision=precision.to(like))

    def state_dict(self) -> State:
        return {"precision": self.precision, "shift": self.shift}

    def load_state_dict(self, state: State) -> None:
        self.precision, self.shift = state["precision"].clone(), state["shift"].clone()


@dataclass(frozen=True, eq=False)
class EdgeSums(TensorFields):
    """Precision and shift of each edge at one time: what came between two times is their difference, and adds.

    Args:
        arms: their names.
        precision, shift: `(tasks, arms, clusters)`.
    """

    arms: tuple[Hashable, ...]
    precision: Tensor
    shift: Tensor

    def __sub__(self, earlier: "EdgeSums") -> "EdgeSums":
        if self.arms != earlier.arms:
            raise ValueError("sums must be of the same arms; take them anew after arms have come or gone")
        return EdgeSums(self.arms, self.precision - earlier.precision, self.shift - earlier.shift)


class DiagLinUCB(LinUCB):
    """LinUCB with a diagonal covariance, which many machines can run on shared sums.

    Args:
        arms: names.
        clusters: width of a context, the weights of a user's clusters.
        width: alpha of the score.
        precision: of each edge before its first reward.
        prior: in its place, what is known of the edges.
        options: of `Policy`.
    """

    def __init__(
        self,
        arms: Any,
        clusters: int,
        *,
        width: float = 1.0,
        precision: float = 1.0,
        prior: DiagonalWeights | None = None,
        **options: Any,
    ) -> None:
        if prior is None:
            zeros = torch.zeros(clusters)
            prior = DiagonalWeights(zeros, zeros + precision, torch.ones(()))
        if prior.loc.shape[-1] != clusters:
            raise ValueError(f"the prior must know {clusters} clusters; it knows {prior.loc.shape[-1]}")
        super().__init__(prior, arms, width=width, **options)

    def sums(self) -> EdgeSums:
        """A copy of the sums as they are; their difference to earlier ones is what another machine can add."""
        state = self._edges()
        return EdgeSums(self.arms, state.precision.clone(), state.shift.clone())

    def add(self, increments: EdgeSums) -> None:
        """Add what rewards elsewhere have added to the sums there: `later - earlier`.

        Raises:
            ValueError: an arm is unknown here, or tasks or clusters differ; then nothing has changed.
        """
        where = torch.tensor([self._learner.roster.position(name) for name in increments.arms])
        state = self._edges()
        tasks, _, clusters = state.precision.shape
        if increments.precision.shape != (tasks, len(where), clusters):
            raise ValueError(
                f"increments must have shape {(tasks, len(where), clusters)}; got {tuple(increments.precision.shape)}"
            )
        state.precision.index_add_(1, where, increments.precision)
        state.shift.index_add_(1, where, increments.shift)

    def _edges(self) -> OnlineDiagonal:
        state = self._learner.posterior.online
        assert isinstance(state, OnlineDiagonal)
        return state
