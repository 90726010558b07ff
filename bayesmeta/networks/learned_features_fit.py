r"""The most probable features, prior over weights and noise after past tasks, short of what only fits these tasks.

In units of the inputs' spread and of the weights under the prior where the search starts, the hyperprior is

$$ A_{ij} \sim N(0, 3^2 / d), \quad b_i \sim N(0, 3^2), \quad \text{loc}_i \sim N(0, 2^2), \quad
\log \text{noise\_var} \sim N(0, 2^2), $$

and the weights have covariance $e^{2t} T T^\top$ with $t \sim N(0, 2^2)$ one scale for all and T lower triangular, the
logs of its diagonal $N(0, 0.5^2)$ and the entries below $N(0, 1 / (k + 3))$ for k weights: as wide as those of an
inverse Wishart that is worth k + 3 tasks, so that few tasks do not teach a covariance of many weights.

With as many features as rows some features explain all that tasks share by chance, whatever the hyperprior. So the
search stops early, by the loop of `bayesmeta.networks.learning.until_no_gain`: it looks at held-out tasks after every
evaluation.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import some_rows, some_tasks
from bayesmeta.networks.features import GRID_OF_X, TanhFeatures, on_grid, tanh_features
from bayesmeta.networks.learning.until_no_gain import learn_until_no_gain, num_held_out
from bayesmeta.numerics.linalg import cholesky, log_det, solve, symmetric, unpack_tril
from bayesmeta.numerics.optimise import maximise
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["most_probable_features", "some_of"]

MAX_TASKS, MAX_ROWS = 256, 2**14  # rows in all
SLOPE_WIDTH, LOC_WIDTH, LOG_WIDTH, SPREAD_WIDTH = 3.0, 2.0, 2.0, 0.5
# within these limits the evidence keeps its digits in float64, wherever a line search goes
LARGEST_SCALE, LARGEST_SPREAD, LARGEST_BELOW, LARGEST_NOISE = math.log(1e2), math.log(10.0), 3.0, math.log(1e6)
TOLERANCE = 1e-8
PATIENCE = 60  # evaluations in which held-out tasks do not gain
SLOW = 10**7  # multiplications in one evidence: then learning takes seconds, and shows its progress

Natural = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # slopes, biases, loc, factor of the covariance, noise_var


def most_probable_features(
    features: TanhFeatures, linear: LinearGaussian, tasks: Data, *, progress: bool
) -> tuple[TanhFeatures, LinearGaussian]:
    """Most probable features and prior over weights, in float64.

    Args:
        features, linear: where the search starts.
        tasks: all have rows; their order is random, for the first ones are held out.
        progress: whether to show that the search goes on, where it takes seconds.
    """
    unknown = _Unknown(features, linear, tasks)
    held_out = slice(0, num_held_out(len(tasks)))

    def learn(part: slice, enough: Callable[[Tensor], bool]) -> Tensor:
        return _climb(unknown, part, enough)

    def value(vector: Tensor) -> float:
        return float(unknown.evidence_per_row(vector, held_out))

    shown = progress and tasks.mask.numel() * features.num_features**2 > SLOW
    vector = learn_until_no_gain(learn, value, len(tasks), patience=PATIENCE, name="features", progress=shown)
    return unknown.build(vector)


def some_of(tasks: Data, generator: Generator) -> Data:
    """Tasks in random order, at most MAX_TASKS, each with an equal part of MAX_ROWS real rows chosen at random."""
    tasks = some_tasks(tasks, MAX_TASKS, generator)
    return some_rows(tasks, MAX_ROWS // len(tasks.mask), generator)


class _Unknown:
    """All that is learned as one vector, its hyperprior and the evidence of tasks."""

    def __init__(self, features: TanhFeatures, prior: LinearGaussian, tasks: Data) -> None:
        (h, d), k = features.weight.shape, features.num_features
        self.features, self.linear, self.y, self.mask = features, prior, tasks.y, tasks.mask
        self.x = on_grid(features.standardised(tasks.x), GRID_OF_X).masked_fill(~tasks.mask[..., None], 0.0)
        self.unit = cholesky(torch.cholesky_inverse(cholesky(prior.precision, "precision")), "covariance")
        self.sizes = [h * d, h, k, k, k * (k - 1) // 2, 1, 1]
        zeros = torch.zeros(sum(self.sizes[2:])).to(self.x)
        self.first = torch.cat([features.weight.flatten(), features.bias, zeros])
        below = (k + 3.0) ** -0.5
        self.width = self._by_block(
            [SLOPE_WIDTH / math.sqrt(d), SLOPE_WIDTH, LOC_WIDTH, SPREAD_WIDTH, below, LOG_WIDTH, LOG_WIDTH]
        )
        self.limit = self._by_block(
            [math.inf, math.inf, math.inf, LARGEST_SPREAD, LARGEST_BELOW, LARGEST_SCALE, LARGEST_NOISE]
        )

    def natural(self, vector: Tensor) -> Natural:
        features, prior = self.features, self.linear
        weight, bias, loc, spread, below, log_scale, log_noise = vector.split(self.sizes)
        factor = unpack_tril(torch.cat([spread, below]), features.num_features)
        root = log_scale.exp() * (self.unit @ factor)
        return weight.reshape_as(features.weight), bias, prior.loc + self.unit @ loc, root, self._noise(log_noise)

    def evidence_per_row(self, vector: Tensor, part: slice) -> Tensor:
        weight, bias, *rest = self.natural(vector)
        inputs = tanh_features(self.x[part], weight, bias)
        return log_evidence(inputs, self.y[part], self.mask[part], *rest).sum() / self.mask[part].sum()

    def log_hyperprior(self, vector: Tensor) -> Tensor:
        """Log density of the hyperprior at a vector, up to a constant."""
        return -0.5 * (vector / self.width).square().sum()

    def build(self, vector: Tensor) -> tuple[TanhFeatures, LinearGaussian]:
        weight, bias, loc, root, noise_var = self.natural(vector)
        half = torch.linalg.solve_triangular(root, torch.eye(len(loc)).to(root), upper=False)
        features = TanhFeatures(weight, bias, self.features.centre, self.features.scale)
        return features, LinearGaussian(loc, symmetric(half.mT @ half), noise_var)

    def _noise(self, log_ratio: Tensor) -> Tensor:
        return self.linear.noise_var * log_ratio[0].exp()

    def _by_block(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(torch.tensor(self.sizes)).to(self.x)


class _Enough(Exception):
    """The search has gone on for long enough."""


def _climb(unknown: _Unknown, part: slice, enough: Callable[[Tensor], bool]) -> Tensor:
    """Best vector that L-BFGS visits before one is enough, by the log hyperposterior given some of the tasks."""
    num_rows = unknown.mask[part].sum()
    best, best_value = unknown.first, -math.inf

    def watched(vector: Tensor) -> Tensor:
        nonlocal best, best_value
        value = unknown.evidence_per_row(vector, part) + unknown.log_hyperprior(vector) / num_rows
        if value.item() > best_value:
            best, best_value = vector.detach().clone(), value.item()
        if enough(vector.detach()):
            raise _Enough
        return value

    with suppress(_Enough):
        maximise(watched, unknown.first, limit=unknown.limit, tolerance=TOLERANCE)
    return best


def log_evidence(
    inputs: Float[Tensor, "tasks n k"], y: Tensor, mask: Tensor, loc: Tensor, root: Tensor, noise_var: Tensor
) -> Float[Tensor, "tasks"]:
    """Log evidence of each task, for weights with covariance root root'.

    It is made of the rows and not of their sums, for the features of the rows move while they are learned.
    """
    rows = (inputs @ root) * mask[..., None]
    residual = (y - inputs @ loc) * mask
    volume = mask.sum(-1) * (2.0 * math.pi * noise_var).log()
    n, k = rows.shape[-2:]
    if n <= k:  # the covariance of the rows, in units of the noise, is the smaller matrix
        factor = cholesky(rows @ rows.mT / noise_var + torch.eye(n).to(rows), "covariance of rows")
        return -0.5 * (volume + log_det(factor) + (residual * solve(factor, residual)).sum(-1) / noise_var)
    factor = cholesky(rows.mT @ rows / noise_var + torch.eye(k).to(rows), "posterior precision")
    step = solve(factor, (rows.mT @ residual[..., None])[..., 0] / noise_var)
    left = residual - (rows @ step[..., None])[..., 0]
    fit = left.square().sum(-1) / noise_var + step.square().sum(-1)
    return -0.5 * (volume + log_det(factor) + fit)
