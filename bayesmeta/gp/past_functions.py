r"""What past tasks' functions have in common and how they differ, as functions of x.

Each past task is summarised by the posterior mean of a GP with one kernel for all tasks, written on shared points z:
$f_j(x) = k(x, z) a_j$. Their mean $m(x) = k(x, z) \bar a$ and their leading principal directions
$\varphi(x) = k(x, z) D$, with $\varphi(x) \varphi(x')^\top$ close to the empirical covariance of the $f_j$, are two
matrix products however many tasks there were.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.fields import TensorFields
from bayesmeta.gp.covariance import matern52

__all__ = ["PastFunctions"]

RANK_TOLERANCE = 1e-12  # of variances along directions, below which there is none
LEAST_WEIGHT = 1e-8  # of a task, in the choice of directions


@dataclass(frozen=True, eq=False)
class PastFunctions(TensorFields):
    """Mean and directions of past functions on shared points, in the units of what they were learned from.

    Args:
        points: where the kernel is centred.
        lengthscale: of the Matern-5/2 kernel.
        mean: weights of the mean function.
        directions: weights of the directions in which past functions differ, one column each.
        loadings: of each past task on the directions, so that `mean + directions @ loadings` are weights of the past
            functions themselves (of their leading parts, where there were more tasks than directions); None if unknown.
    """

    points: Float[Tensor, "points d"]
    lengthscale: Float[Tensor, " d"]
    mean: Float[Tensor, " points"]
    directions: Float[Tensor, "points r"]
    loadings: Float[Tensor, "r tasks"] | None = None

    def __call__(self, x: Float[Tensor, "*batch n d"]) -> tuple[Tensor, Tensor]:
        """The mean m(x) `(*batch, n)` and all directions at x `(*batch, n, r)`, from one kernel matrix."""
        kernel = matern52(x, self.points, self.lengthscale)
        return (kernel @ self.mean[:, None])[..., 0], kernel @ self.directions

    def reach(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*#batch n"] | None:
        """How much past functions say at x: one in the range of `points`, falling to zero with the distance from it.

        None where all of x is in the range.
        """
        outside = x - x.clamp(min=self.points.amin(0), max=self.points.amax(0))
        if not bool((outside != 0).any()):
            return None
        return matern52(outside, torch.zeros_like(outside[..., :1, :]), self.lengthscale)[..., 0]

    def each(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n tasks"]:
        """The function of each past task.

        Raises:
            ValueError: there are no loadings.
        """
        if self.loadings is None:
            raise ValueError("these PastFunctions have no loadings, so what each task did is unknown; fit them anew")
        mean, directions = self(x)
        return mean[..., None] + directions @ self.loadings

    def weighted(self, weights: Float[Tensor, " tasks"]) -> "PastFunctions":
        """The same functions, whose mean and directions are those of tasks that count by `weights`.

        Weights add up to one. Equal ones change nothing but the choice of the directions.

        Raises:
            ValueError: there are no loadings.
        """
        if self.loadings is None:
            raise ValueError("these PastFunctions have no loadings, so what each task did is unknown; fit them anew")
        num_tasks = len(weights)
        centre = self.loadings @ weights
        loadings = self.loadings - centre[:, None]
        # the functions of tasks that count for nothing are kept too, along directions of next to no variance
        counts = weights.clamp(min=LEAST_WEIGHT)
        # directions are divided by one less than the number of tasks
        cov = num_tasks / (num_tasks - 1) * (loadings * counts) @ loadings.mT
        variance, rotation = torch.linalg.eigh(cov)
        kept = variance > RANK_TOLERANCE * variance[-1:]  # the greatest, if there is one
        scale, rotation = variance[kept].sqrt(), rotation[:, kept]
        return replace(
            self,
            mean=self.mean + self.directions @ centre,
            directions=self.directions @ rotation * scale,
            loadings=(rotation / scale).mT @ loadings,
        )

    def about_zero(self) -> "PastFunctions":
        """The same functions with directions about zero rather than about their mean, which is the first of them.

        Directions then stand for the second moment of past functions: the mean's own weight is in doubt as well.

        Raises:
            ValueError: there are no loadings.
        """
        if self.loadings is None:
            raise ValueError("these PastFunctions have no loadings, so how many tasks they are of is unknown")
        num_tasks = self.loadings.shape[-1]
        # about the mean, sums of squares were divided by one less than the number of tasks
        shrink = math.sqrt((num_tasks - 1) / num_tasks)
        directions = torch.cat([self.mean[:, None], shrink * self.directions], -1)
        loadings = torch.cat([self.loadings.new_ones(1, num_tasks), self.loadings / shrink])
        return replace(self, directions=directions, loadings=loadings)
