"""What every problem is: targets for this package, and the same log density for peers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmeta.mcmc.targets import Targets

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """Posteriors of T tasks over d unconstrained parameters.

    Args:
        name: of the problem, as figures have it.
        targets: for this package.
        arrays: data by name, the tasks first.
        jax_density: of one position `(d,)` and one task's arrays by name, written with JAX.
        pyro_model: of one task's tensors by name; its only latent site is `w`, the position.
        num_peers: tasks that slow peers are given.
        setting: what a reader has to know.
    """

    name: str
    targets: Targets
    arrays: dict[str, np.ndarray]
    dim: int
    setting: str
    jax_density: Callable[..., Any] | None = None
    pyro_model: Callable[..., Any] | None = None
    num_peers: int = 10
