r"""A causal transformer neural process: each row looks at those before it, and is never looked at again.

So a row more costs that row, where `TransformerNeuralProcess` looks at all of them again, and the log density of many
rows is one pass. The price is that the order in which rows come matters: what it says of them in one order is not what
it says in another, though both are of the same task. So it does not obey the law `order_of_rows_is_irrelevant` of
`bayesmeta.testing`. As other members whose draws are chains, it is also exempt from those by which draws agree with
predictions, `draws_agree_with_predict`, `draws_follow_the_marginal` and `joint_agrees_with_draws`; it obeys the rest.

Take it where rows arrive one after another and answers are wanted after each. Where all rows are there at once, a set
is the better thing to look at.

Source: row by row without another look: Hassan et al., Efficient autoregressive inference for transformer probabilistic
models (2026).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.neural_processes.transformer.network import Encoded
from bayesmeta.neural_processes.transformer.plain import TransformerNeuralProcess

__all__ = ["CausalTransformerNeuralProcess"]

C = TypeVar("C", bound="CausalTransformerNeuralProcess")


@dataclass(frozen=True, eq=False)
class CausalTransformerNeuralProcess(TransformerNeuralProcess):
    """A causal transformer neural process: `CausalTransformerNeuralProcess.initial(tasks).fit(tasks)`.

    Its arguments are those of `TransformerNeuralProcess`; its rows are in the order in which they came.
    """

    has_context: ClassVar[bool] = False

    def _after(self: C, data: Data) -> C:
        after = super()._after(data)
        if after.batch_shape == self.batch_shape and "_encoded" in self.__dict__:
            # what is known of earlier rows stays as it is
            return after._with_encoded(self._extended(self._encoded, data.expand(self.batch_shape)))
        return after

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, each predicted given those before it: one pass."""
        return self._log_prob_of_block(self._checked(data))

    def chain_log_prob(self, data: Data) -> Tensor:
        """The same as `log_evidence`."""
        return self.log_evidence(data)

    @cached_property
    def _encoded(self) -> Encoded:
        rows = self._kept
        before = self._encoding_of(rows.rows(slice(0, 0)))
        return self._extended(before, rows)

    def _extended(self, before: Encoded, data: Data) -> Encoded:
        with torch.no_grad():
            return self.network.module.extend(before, *self._flat_rows(data))
