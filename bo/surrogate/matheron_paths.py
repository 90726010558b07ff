"""Draws of functions as BoTorch's pathwise acquisitions ask for them."""

import torch
from botorch.sampling.pathwise.paths import SamplePath
from jaxtyping import Float
from torch import Tensor

from bayesmeta.protocol import Posterior
from bo.surrogate.paths import Paths

__all__ = ["MatheronPaths"]


class MatheronPaths(SamplePath):
    """Draws from torch's global stream, by whatever means the posterior has: random features are but one.

    Args:
        posterior: of one task with one output.
        sample_shape: of the draws.
    """

    def __init__(self, posterior: Posterior, sample_shape: torch.Size) -> None:
        super().__init__()
        self.sample_shape = sample_shape
        self.paths = Paths(posterior, sample_shape.numel())

    def set_ensemble_as_batch(self, ensemble_as_batch: bool) -> None:
        """Nothing to set: each draw has one hypothesis, of which BoTorch knows nothing."""

    def forward(self, x: Float[Tensor, "*b n d"]) -> Tensor:
        """All draws at the points of x `(n, d)`, or each at its own of x `(*b, *sample_shape, n, d)`."""
        if x.ndim == 2:
            return self.paths.everywhere(x).reshape(*self.sample_shape, len(x))
        batch = torch.broadcast_shapes(x.shape[:-2], self.sample_shape)
        own = x.expand(*batch, *x.shape[-2:]).reshape(-1, self.sample_shape.numel(), *x.shape[-2:])
        values = self.paths.apart(own.movedim(0, 1).flatten(1, 2))
        return values.unflatten(1, (len(own), x.shape[-2])).movedim(0, 1).reshape(*batch, x.shape[-2])
