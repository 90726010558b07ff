"""Means of rewards, for policies that know no prior."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns
from bayesmeta.distributions.constant import row_shape
from bayesmeta.fields import TensorFields

__all__ = ["Averages"]


@dataclass(frozen=True, eq=False)
class Averages(TensorFields):
    """The mean of the rewards so far, zero before the first, and its standard error for rewards of variance one.

    Args:
        total: of the rewards.
        count: of them.
    """

    total: Tensor
    count: Tensor

    @classmethod
    def none(cls) -> "Averages":
        """Before the first reward; in float64, as policies keep their numbers."""
        return cls(*torch.zeros(2, dtype=torch.float64))

    @property
    def batch_shape(self) -> torch.Size:
        return self.total.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def statistics(self, data: Data | Statistics) -> Statistics:
        require_columns(data, num_inputs=0, event_shape=())
        return Statistics.of(data, order=1)

    def condition(self, data: Data | Statistics) -> "Averages":
        stats = self.statistics(data)
        total = self.total.double() + stats.count * stats.mean[..., 0]
        return self._replace(total=total.to(self.total), count=(self.count.double() + stats.count).to(self.count))

    def predict(self, x: Tensor | None = None) -> Normal:
        return self.marginal(x)

    def marginal(self, x: Tensor | None = None) -> Normal:
        rows = row_shape(x, self.batch_shape)
        count = self.count.clamp(min=1.0)[..., None]
        return Normal((self.total[..., None] / count).expand(rows), count.rsqrt().expand(rows))
