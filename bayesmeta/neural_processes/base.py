"""What neural processes share: they standardise rows, ask a network, and read its answer by a head."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.neural_processes.augmentation import Augmentation
from bayesmeta.neural_processes.episodes import Episode
from bayesmeta.neural_processes.heads import GaussianHead, Head
from bayesmeta.neural_processes.learning import Schedule, calibrate, learn
from bayesmeta.neural_processes.second_moments import covariance, with_diagonal
from bayesmeta.warning_kinds import BayesmetaWarning, warn

if TYPE_CHECKING:
    from bayesmeta.neural_processes.online import OnlineSums

__all__ = ["FarFromPastWarning", "KeepsRows", "KeepsSums", "NeuralProcess", "clean"]

FAR = 20.0  # standard deviations of past rows; the farthest of a million normal ones is at 5

K = TypeVar("K", bound="KeepsRows")
N = TypeVar("N", bound="NeuralProcess")
S = TypeVar("S", bound="KeepsSums")


class FarFromPastWarning(BayesmetaWarning):
    """A task is far from all that a network learned from."""


class NeuralProcess(TensorFields):
    """Mixin of neural processes: dataclasses with these fields, and what they know of tasks."""

    inputs: Inputs
    head: Head
    network: Weights
    learned_from: LearnedFrom | None

    network_kind: ClassVar[type[Weights]]
    sizes_of_head: ClassVar[tuple[str, ...]] = ("num_y", "num_outputs")  # sizes of the network that the head knows
    gains_from_float64: ClassVar[bool] = False  # networks learn in float32
    knows_functions: ClassVar[bool] = False  # whether y about the function is what the head says, and not learned apart

    @classmethod
    def initial(
        cls: type[N],
        tasks: Data,
        *,
        head: type[Head] = GaussianHead,
        categories: dict[int, int] | None = None,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> N:
        """A network that has learned nothing, on the scale of `tasks`.

        Args:
            tasks: whose rows set the scales.
            head: the kind of the distribution of a row.
            categories: how many there are, by the column of x that holds them.
            generator: draws the weights; None draws the same ones each time.
            sizes: of the network, by the names of the arguments of `network_kind`, such as `width`.
        """
        inputs, made = Inputs.of(tasks, categories), head.initial(tasks)
        known = {name: getattr(made, name) for name in cls.sizes_of_head}
        network = cls.network_kind.initial(generator=generator, num_inputs=inputs.num_outputs, **known, **sizes)
        return cast(N, cls._without_rows(inputs, made, network).to(tasks.y.dtype))

    @classmethod
    def _without_rows(cls, inputs: Inputs, head: Head, network: Weights) -> Any:
        """The prior with these fields."""
        made_by: Any = cls
        return made_by(inputs, head, network)

    @property
    def event_shape(self) -> torch.Size:
        return self.head.event_shape

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return len(self.inputs.centre)

    def fit(
        self: N,
        tasks: Any,
        *,
        schedule: Schedule | None = None,
        generator: Generator | None = None,
        checkpoint: str | Path | None = None,
        augmentation: Augmentation | None = None,
        progress: bool = True,
    ) -> N:
        """A network that predicts rows of past tasks from others of the same task, starting from that of `self`.

        Args:
            tasks: past tasks, or a `TaskStream` that draws new ones.
            schedule: how long, with how many tasks and rows at a time.
            generator: chooses tasks and rows; None takes a fixed choice.
            checkpoint: a file from which learning goes on if it is there, to the last bit, and which it keeps up to
                date. The rest of the call has to be the same; the state of `generator` is in the file.
            augmentation: how past tasks are changed each time that they are learned from; None leaves them as they are.
            progress: show that learning goes on.

        Raises:
            TypeError: `tasks` are neither, or `augmentation` is none.
            ValueError: fewer than two past tasks have rows, they are not of these columns, the checkpoint is of
                learning from something else, of another network or cut short, an augmentation is given with a stream or
                does not go with the head, or `self` has a batch or has seen rows.
        """
        made = learn(self, tasks, schedule, generator, checkpoint, augmentation=augmentation, progress=progress)
        return cast(N, made)

    def calibrated(self: N, held_out: Data, *, generator: Generator | None = None) -> N:
        """The same prior with the temperature of its head at which tasks that it did not learn from are most probable.

        Predictions of a network are too narrow where past tasks were few, and here they are made as wide as their
        errors. One number does it for all predictions, so a task unlike all others stays surprising.

        Args:
            held_out: tasks that `fit` has not seen; with those that it has, the answer is too narrow.
            generator: chooses which rows of them are known; None takes a fixed choice.

        Raises:
            ValueError: none of the tasks has rows, or `self` has a batch or has seen rows.
        """
        return cast(N, calibrate(self, held_out, generator))

    def predict(self, x: Tensor) -> Distribution:
        """p(y | x) at each row, noise included: batch_shape `(*batch, q)`."""
        return self._prediction(self._outputs(x))

    def marginal(self, x: Tensor) -> Normal:
        """p(f(x)) at each row, noise-free."""
        return self.head.noise_free(self.predict(x))

    def joint(self, x: Tensor) -> MultivariateNormal:
        """f at all q rows together, by its first two moments: `(*batch, q)` and `(*batch, q, q)`.

        How far the mean of one row moves once another is known to be a standard deviation higher or lower says their
        covariance. Where the network answers as a Gaussian process would, it is exact. Else it is symmetric on average
        alone, and made positive definite. The density of the network's own chain is `log_evidence`.
        """
        prediction = self.predict(x)
        batch, (num, d) = prediction.batch_shape[:-1], x.shape[-2:]
        rows = x.expand(*batch, num, d)
        moves = self._moves(rows, prediction, rows[..., None, :, :].expand(*batch, num, num, d))
        marginal = self.head.noise_free(prediction)
        return MultivariateNormal(marginal.mean, with_diagonal(covariance(moves, prediction.stddev), marginal.variance))

    def _moves(self, x: Tensor, prediction: Distribution, x_asked: Tensor) -> Tensor:
        """How far means of y move, once y at one row more is known to be a standard deviation higher.

        Args:
            x: such rows `(*batch, q, d)`.
            prediction: of y there.
            x_asked: whose means they are, for each of these rows `(*batch, q, m, d)`.

        Returns:
            `(*batch, q, m)`: half of the difference between a standard deviation higher and lower.
        """
        up, down = (
            self.head.distribution(self._given_one(x, prediction.mean + sign * prediction.stddev, x_asked)).mean
            for sign in (1.0, -1.0)
        )
        return 0.5 * (up - down)

    def _log_prob(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> Tensor:
        """Of the rows of an episode that are asked about, each alone, with other weights: one sum per task.

        Where the exact moments of these rows are known, it is the expected one under them.
        """
        outputs, num_seen = self._answers(weights, episode, generator)
        distribution = self.head.in_standard_units().distribution(outputs)
        if episode.moments is not None and isinstance(distribution, Normal):
            mean, var = (part.gather(-1, num_seen[..., None])[..., 0] for part in episode.moments)
            log_prob = distribution.log_prob(mean) - 0.5 * var / distribution.variance
        else:
            log_prob = distribution.log_prob(episode.y_asked)
        return (log_prob * episode.mask_asked).sum(-1)

    def _answers(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> tuple[Tensor, Tensor]:
        """Answers about an episode, and how many known rows each could see."""
        raise TypeError("each member says what it answers")

    def _outputs(self, x: Tensor) -> Tensor:
        """What the network answers, `(*batch, q, num_outputs)`."""
        raise TypeError("each member says how its network is asked")

    def _prediction(self, outputs: Tensor) -> Distribution:
        """What it means by its answers."""
        return self.head.distribution(outputs)

    def _given_one(self, x: Tensor, y: Tensor, x_asked: Tensor) -> Tensor:
        """What it answers about rows `(*batch, q, m, d)`, given one more row each `(*batch, q, d)`, `(*batch, q)`."""
        raise TypeError("each member says how its network is asked")

    def _checked(self, data: Data) -> Data:
        require_columns(data, num_inputs=self.num_inputs, event_shape=tuple(self.event_shape))
        self.head.require(data)
        return clean(data)

    def _warn_if_far(self, x: Tensor, y: Tensor, mask: Tensor) -> None:
        """Say so where rows, as the network sees them, are far from all that was learned from."""
        if self.learned_from is None or not mask.numel():
            return
        for name, seen in (("x", x), ("y", y)):
            farthest = float((seen.abs() * mask[..., None]).max()) if seen.shape[-1] else 0.0
            if farthest > FAR:
                warn(
                    f"{name} of a row is {farthest:.3g} standard deviations from the mean of the rows that this "
                    f"{type(self).__name__} learned from: it has seen nothing like it, and what it says is a guess",
                    FarFromPastWarning,
                )


class KeepsSums(NeuralProcess):
    """Mixin of those that know of a task the sum of the encodings of its rows, and their number."""

    total: Tensor
    count: Tensor

    @classmethod
    def _without_rows(cls, inputs: Inputs, head: Head, network: Weights) -> Any:
        nothing = torch.zeros_like(network.weights["encoder.perceptron.first.bias"])
        made_by: Any = cls
        return made_by(inputs, head, network, nothing, nothing.new_zeros(()))

    @property
    def has_seen_rows(self) -> bool:
        """Whether it is a posterior."""
        return bool((self.count != 0.0).any())

    @property
    def batch_shape(self) -> torch.Size:
        return self.count.shape

    def condition(self: S, data: Data) -> S:
        """The posterior after the rows of `data`: their encodings are added."""
        data = self._checked(data)
        x, y = self.inputs(data.x), self.head.seen(data.y)
        self._warn_if_far(x, y, data.mask)
        added = self.network.module.encode(x, y, data.mask).sum(-2)
        return self._replace(total=self.total + added, count=self.count + data.count.to(self.count))

    def online(self, batch_shape: Sequence[int]) -> "OnlineSums":
        """The posterior of tasks, or of tasks and arms, to be updated in place."""
        from bayesmeta.neural_processes.online import OnlineSums

        return OnlineSums(self, batch_shape)

    def _encodings(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return self.network.module.encode(self.inputs(x), self.head.seen(y), mask)


class KeepsRows(NeuralProcess):
    """Mixin of those that look at all rows of a task again for each query."""

    rows: Data | None

    @property
    def has_seen_rows(self) -> bool:
        """Whether it is a posterior."""
        return self.rows is not None

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size() if self.rows is None else self.rows.batch_shape

    def condition(self: K, data: Data) -> K:
        """The posterior after the rows of `data`, which it keeps beside those that it has seen."""
        data = self._checked(data)
        self._warn_if_far(self.inputs(data.x), self.head.seen(data.y), data.mask)
        return self._after(data)

    def _after(self: K, data: Data) -> K:
        """The posterior after rows that were checked."""
        return self._replace(rows=data if self.rows is None else self.rows + data)

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, each predicted by a fresh look at those before it."""
        data, num = self._checked(data), data.mask.shape[-1]
        rows = self.condition(data)._kept
        before = torch.ones(num, rows.mask.shape[-1], dtype=torch.bool, device=rows.mask.device)
        mask = rows.mask[..., None, :] & before.tril(rows.mask.shape[-1] - num - 1)
        x, y = rows.x[..., None, :, :], rows.y.unsqueeze(rows.mask.ndim - 1)
        each = self._replace(rows=Data(x.expand(*mask.shape, -1), y.expand(*mask.shape, *self.event_shape), mask))
        prediction = each.predict(data.x.expand(*mask.shape[:-1], -1)[..., None, :])
        log_prob = prediction.log_prob(data.y.unsqueeze(data.mask.ndim))[..., 0]
        return (log_prob * data.mask).sum(-1)

    def expand(self: K, batch_shape: Sequence[int]) -> K:
        try:
            return self._replace(rows=self._kept.expand(tuple(batch_shape)))
        except RuntimeError:
            raise ValueError(
                f"batch_shape {tuple(self.batch_shape)} does not broadcast to {tuple(batch_shape)}"
            ) from None

    def __getitem__(self: K, index: Any) -> K:
        if not self.batch_shape:
            raise IndexError(f"this {type(self).__name__} has no batch to index")
        return self._replace(rows=self._kept[index])

    @cached_property
    def _kept(self) -> Data:
        """The rows, of which there may be none."""
        if self.rows is not None:
            return self.rows
        like = self.inputs.centre
        y = like.new_zeros(0, *self.event_shape)
        return Data(like.new_zeros(0, self.num_inputs), y, torch.zeros(0, dtype=torch.bool, device=like.device))


def clean(data: Data) -> Data:
    """The same rows with zeros in all pads, which may hold anything."""
    if bool(data.mask.all()):
        return data
    y_mask = data.mask.reshape(*data.mask.shape, *[1] * len(data.event_shape))
    return replace(data, x=data.x.where(data.mask[..., None], 0.0), y=data.y.where(y_mask, 0.0))
