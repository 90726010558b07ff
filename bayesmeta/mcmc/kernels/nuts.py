"""The No-U-Turn sampler of Pyro, for one task at a time: the last resort, which adapts to what nothing else fits.

Source: Hoffman and Gelman, The No-U-Turn sampler (2014).
"""

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.targets import Targets
from bayesmeta.random import seeded

__all__ = ["nuts_draws"]


def nuts_draws(
    targets: Targets, start: Tensor, num_draws: int, num_warmup: int, generator: Generator | None = None
) -> Tensor:
    """Draws `(num_draws, d)` of the one task of `targets`, by one chain from `start` `(d,)`."""
    from pyro.infer import MCMC, NUTS

    def potential(position: dict[str, Tensor]) -> Tensor:
        value = -targets.log_density(position["x"][None])[0]
        return value.where(value > -torch.inf, torch.inf)

    with seeded(generator):
        kernel = NUTS(potential_fn=potential, adapt_mass_matrix=True, full_mass=True, target_accept_prob=0.9)
        run = MCMC(
            kernel,
            num_samples=num_draws,
            warmup_steps=num_warmup,
            initial_params={"x": start},
            disable_progbar=True,
        )
        run.run()
    return run.get_samples()["x"].detach()
