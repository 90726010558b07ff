r"""Bayesian networks of binary variables on a grid, each the child of the one above and the one to its left.

$$ p(x, e) = \prod_{ij} p(x_{ij} \mid x_{i-1,j}, x_{i,j-1}) \, p(e_{ij} \mid x_{ij}) $$

Their moral graph joins neighbours in a row, in a column, and on the diagonal from bottom left to top right, whose two
nodes have a child in common. So (i - j) modulo 3 colours the nodes such that equal ones do not see each other.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, pad, softplus

from bayesmeta.fields import TensorFields
from bayesmeta.mcmc.kernels.gibbs import BinaryGibbs
from bayesmeta.random import rand

__all__ = ["GridNetwork", "grids_with_draws", "random_grids", "single_site"]

LEAST_NOISE, MOST_NOISE = 1e-3, 0.05  # of nodes that all but follow their parents
OBSERVED = 0.2  # share of nodes with a noisy observation
LEAST_FLIP, MOST_FLIP = 0.01, 0.1  # of an observation


@dataclass(frozen=True, eq=False)
class GridNetwork(TensorFields):
    """Networks of one size, one for each model.

    Args:
        logits: of a one, given the node above and the node to the left; outside of the grid stand zeros.
        evidence: log p(e | 1) - log p(e | 0) of what was observed at each node, zero for nothing.
    """

    logits: Float[Tensor, "models rows columns 2 2"]
    evidence: Float[Tensor, "models rows columns"]

    event_shape: ClassVar[torch.Size] = torch.Size()

    @property
    def batch_shape(self) -> torch.Size:
        return self.evidence.shape[:1]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.evidence.shape[1], self.evidence.shape[2]

    def log_density(self, position: Tensor) -> Tensor:
        """Log p(x, e) but for a constant of each model, at `(chains, models, rows columns)`."""
        x = position.reshape(*position.shape[:2], *self.size)
        up, left = pad(x[..., :-1, :], (0, 0, 1, 0)), pad(x[..., :-1], (1, 0))
        a = self.logits
        logit = torch.lerp(
            torch.lerp(a[..., 0, 0], a[..., 0, 1], left), torch.lerp(a[..., 1, 0], a[..., 1, 1], left), up
        )
        return (x * (logit + self.evidence) - softplus(logit)).sum((-2, -1))

    def ancestral(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Draws of the nodes that do not know of the evidence, `(num_draws, models, rows, columns)`."""
        rows, columns = self.size
        x = self.logits.new_zeros(num_draws, *self.batch_shape, rows + 1, columns + 1)
        uniform = rand((num_draws, *self.evidence.shape), like=self.logits, generator=generator)
        probs = self.logits.sigmoid()
        for i in range(rows):
            for j in range(columns):
                up, left, p = x[..., i, j + 1], x[..., i + 1, j], probs[:, i, j]
                given = torch.lerp(
                    torch.lerp(p[:, 0, 0], p[:, 0, 1], left), torch.lerp(p[:, 1, 0], p[:, 1, 1], left), up
                )
                x[..., i + 1, j + 1] = (uniform[..., i, j] < given).to(x)
        return x[..., 1:, 1:]

    def children(self) -> tuple[Tensor, Tensor]:
        """What a one against a zero adds to the log odds, by the child below and by the child to the right.

        Each is `(models, rows, columns, 2, 2)`, by the value of the child and that of its other parent; zero where
        there is no child.
        """
        signs = torch.tensor([-1.0, 1.0]).to(self.logits)
        terms = logsigmoid(signs[:, None, None] * self.logits[..., None, :, :])  # by child, up, left
        below = terms[..., 1, :] - terms[..., 0, :]
        right = terms[..., :, 1] - terms[..., :, 0]
        return pad(below[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1)), pad(right[:, :, 1:], (0, 0, 0, 0, 0, 1))


def random_grids(
    num: int, rows: int, columns: int, determinism: Tensor, *, generator: Generator | None = None
) -> GridNetwork:
    """Networks whose nodes follow their parents but for little noise, with probability `determinism` `(num,)`.

    Other nodes have uniform probabilities. Some nodes have noisy observations, of an ancestral draw.
    """
    return grids_with_draws(num, rows, columns, determinism, generator=generator)[0]


def grids_with_draws(
    num: int, rows: int, columns: int, determinism: Tensor, *, generator: Generator | None = None
) -> tuple[GridNetwork, Tensor]:
    """Networks as of `random_grids`, and what was observed of each: a draw of its posterior `(num, rows, columns)`."""
    like = determinism
    each = (num, rows, columns)

    def uniform(*more: int) -> Tensor:
        return rand((*each, *more), like=like, generator=generator)

    noise = LEAST_NOISE * (MOST_NOISE / LEAST_NOISE) ** uniform()
    sign = torch.where(uniform(2, 2) < 0.5, -1.0, 1.0)
    strict = sign * torch.logit(1.0 - noise)[..., None, None]
    loose = torch.logit(uniform(2, 2), eps=MOST_NOISE)
    follows = uniform() < determinism[:, None, None]
    logits = torch.where(follows[..., None, None], strict, loose)
    logits[:, 0, :, 1] = logits[:, 0, :, 0]  # no parent above
    logits[:, :, 0, :, 1] = logits[:, :, 0, :, 0]
    without = GridNetwork(logits, torch.zeros(each).to(logits))
    x = without.ancestral(1, generator=generator)[0]
    flip = LEAST_FLIP + (MOST_FLIP - LEAST_FLIP) * uniform()
    observed = torch.where(uniform() < flip, 1.0 - x, x)
    evidence = (2.0 * observed - 1.0) * torch.logit(1.0 - flip)
    return GridNetwork(logits, evidence.where(uniform() < OBSERVED, 0.0)), x


def single_site(network: GridNetwork) -> BinaryGibbs:
    """Gibbs sampling of its nodes one by one, in three colours."""
    rows, columns = network.size
    d = rows * columns
    numbers = pad(torch.arange(d).reshape(rows, columns), (1, 1, 1, 1), value=d)
    shifts = [(-1, 0), (0, -1), (1, 0), (1, -1), (0, 1), (-1, 1)]  # parents, then each child and its other parent
    blanket = [numbers[1 + i : 1 + i + rows, 1 + j : 1 + j + columns].flatten() for i, j in shifts]
    below, right = network.children()
    own = (network.logits + network.evidence[..., None, None])[..., :, :, None, None, None, None]
    table = own + below[..., None, None, :, :, None, None] + right[..., None, None, None, None, :, :]
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    colours = ((i - j) % 3).flatten()
    return BinaryGibbs(torch.stack(blanket, -1), table.reshape(-1, d, 64), colours, network.log_density)
