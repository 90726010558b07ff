r"""A transformer neural process: attention from what is asked to all rows of the task.

One pass over the rows gives keys and values, which stay with the posterior; a query costs one more look at them. It
comes in two kinds: with `knows_stationarity` rows are told apart by the differences of their inputs alone, so that what
was learned at one place holds everywhere; without, inputs themselves are seen too.

Marginal predictions come in one pass. The joint distribution of several rows is that of a chain: each is predicted
given those before it. Rows of the chain are *later* rows, which the network learns to take beside the context without
looking at the context again. A perfect learner would not mind in which order the chain goes; how far this one does is
its exchangeability error.

Source: Nguyen and Grover, Transformer neural processes (2022); distances: Ashman et al., Translation equivariant
transformer neural processes (2024); later rows: Hassan et al., Efficient autoregressive inference for transformer
probabilistic models (2026).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.neural_processes.base import KeepsRows
from bayesmeta.neural_processes.episodes import Episode
from bayesmeta.neural_processes.function_draws import FunctionDraws
from bayesmeta.neural_processes.heads import GaussianHead, Head
from bayesmeta.neural_processes.transformer.network import Encoded, TransformerNetwork
from bayesmeta.random import randint

__all__ = ["MOST_LATER", "LaterChain", "TransformerNeuralProcess"]

T = TypeVar("T", bound="TransformerNeuralProcess")

MOST_LATER = 16  # rows of a chain in training


@dataclass(frozen=True, eq=False)
class TransformerNeuralProcess(KeepsRows):
    """A transformer neural process: `TransformerNeuralProcess.initial(tasks).fit(tasks)`.

    Args:
        inputs, head: how x and y become numbers of order one, and what the network's answer means.
        network: shared by all tasks, without a batch.
        rows: of the tasks that it was conditioned on.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    inputs: Inputs
    head: Head
    network: TransformerNetwork
    rows: Data | None = None
    learned_from: LearnedFrom | None = None

    network_kind: ClassVar[type[Weights]] = TransformerNetwork
    sizes_of_head: ClassVar[tuple[str, ...]] = (*KeepsRows.sizes_of_head, "num_locations")
    has_context: ClassVar[bool] = True  # whether rows that are known together are a set

    @classmethod
    def initial(
        cls: type[T],
        tasks: Data,
        *,
        head: type[Head] = GaussianHead,
        knows_stationarity: bool = True,
        categories: dict[int, int] | None = None,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> T:
        """A network that has learned nothing, on the scale of `tasks`.

        Args:
            tasks: whose rows set the scales.
            head: the kind of the distribution of a row.
            knows_stationarity: whether rows are told apart by differences of x alone.
            categories: how many there are, by the column of x that holds them.
            generator: draws the weights; None draws the same ones each time.
            sizes: of the network, see `TransformerNetwork`.
        """
        options: dict[str, Any] = {"head": head, "categories": categories, "generator": generator}
        return super().initial(tasks, knows_stationarity=knows_stationarity, **options, **sizes)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> FunctionDraws:
        """Draws of f, which remember where they were evaluated: see `FunctionDraws`."""
        return FunctionDraws(self.head.noise_sd, LaterChain(self.expand((num_draws, *self.batch_shape))), generator)

    def chain_log_prob(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows in their order, as draws of functions go: a joint density in few passes.

        Rows that were predicted become later rows, which are appended without another look at what was known. After
        `MOST_LATER` of them, as many as in training, all are looked at anew. `log_evidence` looks anew for each row:
        nearer to the truth, and slower.
        """
        data, posterior = self._checked(data), self
        total = data.y.new_zeros(torch.broadcast_shapes(data.batch_shape, self.batch_shape))
        for start in range(0, data.mask.shape[-1], MOST_LATER):
            block = data.rows(slice(start, start + MOST_LATER))
            total = total + posterior._log_prob_of_block(block)
            posterior = posterior.condition(block)
        return total

    def _log_prob_of_block(self, data: Data) -> Tensor:
        batch = torch.broadcast_shapes(data.batch_shape, self.batch_shape)
        before, num = self.expand(batch)._kept, data.mask.shape[-1]
        num_before = before.mask.shape[-1]
        num_context = num_before if self.has_context else 0
        x, y, mask = self._flat_rows(before + data.expand(batch))
        place = torch.arange(num_before + num, device=mask.device)
        rows = (place + 1).clamp(min=num_context)  # later rows see up to themselves
        counts = (place < torch.cat([rows, place[num_before:]])[:, None]) & mask[:, None]
        later = (place >= num_context).expand(mask.shape)
        answer = self.network.module(x, y, later, x[:, num_before:], counts)
        prediction = self.head.distribution(answer.reshape(*batch, num, answer.shape[-1]))
        return (prediction.log_prob(data.y) * data.mask).sum(-1)

    def _outputs(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        rows = self._kept
        batch = torch.Size(np.broadcast_shapes(rows.batch_shape, x.shape[:-2]))
        known = self._encoded if batch == rows.batch_shape else self.expand(batch)._encoded
        flat = self.inputs(x.expand(*batch, *x.shape[-2:])).reshape(batch.numel(), x.shape[-2], self.inputs.num_outputs)
        answer = self.network.module.ask(known, flat)
        return answer.reshape(*batch, x.shape[-2], -1)

    def _given_one(self, x: Tensor, y: Tensor, x_asked: Tensor) -> Tensor:
        *batch, num, num_asked, _ = x_asked.shape
        each = torch.Size(batch).numel() * num
        known = (self if torch.Size(batch) == self.batch_shape else self.expand(batch))._encoded.repeated(num)
        row, value = self.inputs(x).reshape(each, 1, -1), self.head.seen(y).reshape(each, 1, -1)
        more = self.network.module.extend(known, row, value)
        answer = self.network.module.ask(more, self.inputs(x_asked).reshape(each, num_asked, -1))
        return answer.reshape(*batch, num, num_asked, -1)

    @cached_property
    def _encoded(self) -> Encoded:
        return self._encoding_of(self._kept)

    def _with_encoded(self: T, encoded: Encoded) -> T:
        """The same posterior, which need not look at its rows: `encoded` is what the network makes of them."""
        known = self._replace()
        known.__dict__["_encoded"] = encoded
        return known

    def _encoding_of(self, context: Data) -> Encoded:
        with torch.no_grad():
            return self.network.module.encode(*self._flat_rows(context))

    def _flat_rows(self, rows: Data) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and mask of rows as the network takes them, tasks on one axis."""
        num, each = rows.batch_shape.numel(), rows.mask.shape[-1]
        x, y = self.inputs(rows.x), self.head.seen(rows.y)
        return x.reshape(num, each, x.shape[-1]), y.reshape(num, each, y.shape[-1]), rows.mask.reshape(num, each)

    def _answers(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> tuple[Tensor, Tensor]:
        """Answers about an episode, and how many known rows each could see."""
        num_tasks, num_known = episode.mask.shape
        num_asked = episode.x_asked.shape[1]
        num_context = max(num_known - MOST_LATER, 0) if self.has_context else 0
        if self.has_context and (num_known <= MOST_LATER or bool(randint(2, (), generator=generator))):
            num_context = num_known
        place = torch.arange(num_known, device=episode.mask.device)
        later = (place >= num_context).expand(num_tasks, num_known)
        seen = num_context + randint(num_known - num_context + 1, (num_asked,), generator=generator).to(place.device)
        rows = (place + 1).clamp(min=num_context)
        counts = place < torch.cat([rows, seen])[:, None]
        counts = counts & episode.mask[:, None]
        answers = self.network.at(weights, episode.x, episode.y, later, episode.x_asked, counts)
        return answers, seen.expand(num_tasks, num_asked)


class LaterChain:
    """A transformer that takes in later rows one after another, in place.

    All rows are looked at anew after `MOST_LATER` of them, as many as there are in training.

    Args:
        posterior: with draws as the first axis of its batch.
    """

    def __init__(self, posterior: TransformerNeuralProcess) -> None:
        self._posterior, self._known = posterior, posterior._encoded
        self._later: list[Data] = []

    @property
    def batch_shape(self) -> torch.Size:
        return self._posterior.batch_shape

    def predict(self, x: Tensor) -> Distribution:
        batch = self.batch_shape
        flat = self._flat(self._posterior.inputs(x), x.shape[-2])
        answer = self._posterior.network.module.ask(self._known, flat)
        return self._posterior.head.distribution(answer.reshape(*batch, x.shape[-2], answer.shape[-1]))

    def marginal(self, x: Tensor) -> Normal:
        return self._posterior.head.noise_free(self.predict(x))

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor) -> None:
        self._later.append(Data(x[..., None, :], y[..., None], torch.ones_like(y[..., None], dtype=torch.bool)))
        if len(self._later) == MOST_LATER:
            for row in self._later:
                self._posterior = self._posterior.condition(row)
            self._known, self._later = self._posterior._encoded, []
            return
        x, y = (self._flat(part, 1) for part in (self._posterior.inputs(x), self._posterior.head.seen(y)))
        self._known = self._posterior.network.module.extend(self._known, x, y)

    def _flat(self, rows: Tensor, num: int) -> Tensor:
        return rows.reshape(self.batch_shape.numel(), num, rows.shape[-1])
