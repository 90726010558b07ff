"""Particles of the weights of regressions, updated in place."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.diffusion.online import ParticlesInPlace, at
from bayesmeta.diffusion.weight_particles import WeightParticles
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task
from bayesmeta.online.row_store import RowStore
from bayesmeta.regression.linear import LinearGaussian

if TYPE_CHECKING:
    from bayesmeta.diffusion.regression import DiffusionRegression

__all__ = ["OnlineWeightParticles"]


class OnlineWeightParticles(DrawsFunctions, ParticlesInPlace):
    """See `ParticlesInPlace`; rows are kept. Where y has no normal noise, particles are draws, and are only weighed."""

    def __init__(self, prior: "DiffusionRegression", batch_shape: Sequence[int]) -> None:
        super().__init__(prior, batch_shape)
        self.prior = prior
        self._rows = RowStore(batch_shape, prior.device)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self._particles(x, task).marginal(x)

    def posterior(self, index: Any = ...) -> "DiffusionRegression":
        return self._of(index).condition(self._rows.rows(index, self.prior.num_inputs))

    def state_dict(self) -> State:
        return super().state_dict() | {"rows": self._rows.state_dict()}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._rows.load_state_dict(state["rows"])

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        return self._particles(x, task).sample(1, generator)

    def _particles(self, x: Tensor, task: Task) -> WeightParticles:
        parts = (at(part, x, task) for part in (self._mean, self._root, self._log_weights))
        return WeightParticles(self.prior.weights, *parts)

    def _read(self, x: Tensor, y: Tensor) -> Tensor:
        self.prior.kept_of(Data.of(x[:, None], y[:, None]))
        return x

    def _keep(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._rows.add(index, x, y)

    def _step(self, index: Index, x: Tensor, y: Tensor) -> None:
        x, weights = x.double(), self.prior.weights
        expected = (self._mean[index] @ x[..., None])[..., 0]
        if isinstance(weights, LinearGaussian):
            f = (x[:, None] @ self._root[index])[:, 0]
            self._step_of_normal(index, f, expected, y, weights.noise_var.double())
        else:
            self._weigh(index, weights.likelihood.log_prob(expected, y[:, None], expected.new_ones(())))
