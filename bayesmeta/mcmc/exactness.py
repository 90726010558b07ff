r"""Evidence that draws are exact, where the exact answer is not known: by tasks whose parameters were drawn first.

If $\theta_0 \sim p(\theta)$ and $D \sim p(D \mid \theta_0)$, then $\theta_0$ is one more draw of
$p(\theta \mid D)$. So its rank among draws is uniform (`ranks`), and so is the share of draws that are nearer than it
to any point chosen without looking (`nearer_shares`). And a kernel that starts at $\theta_0$ leaves it there in law:
after any number of steps, with data drawn anew in between, parameters still have their prior (`joint_simulation`).

Source: Talts et al., Validating Bayesian inference algorithms with simulation-based calibration (2018); Lemos et al.,
Sampling-based accuracy testing of posterior estimators for general inference (2023); Geweke, Getting it right (2004);
Gandy and Scott, Unit testing for MCMC and other Monte Carlo methods (2020).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.protocol import Kernel
from bayesmeta.random import randn

__all__ = ["joint_simulation", "nearer_shares", "ranks", "thinned"]


def thinned(draws: Tensor, num: int) -> Tensor:
    """`num` of the draws `(chains, draws, ...)`, as far apart in their chains as they can be: `(num, ...)`.

    Ranks among draws that repeat each other are not uniform; ask for fewer than their effective number.
    """
    flat = draws.flatten(0, 1)
    if num > len(flat):
        raise ValueError(f"num must be at most {len(flat)}, the number of draws; got {num}")
    return flat[torch.linspace(0.0, len(flat) - 1.0, num).round().long()]


def ranks(draws: Tensor, truth: Tensor, *, num: int = 99) -> Tensor:
    """How many of `num` draws lie below the truth, of each task and coordinate: uniform on 0, ..., num.

    Args:
        draws: `(chains, draws, tasks, d)`, such as `Draws.position`.
        truth: parameters that the tasks' data were drawn with `(tasks, d)`.
        num: draws that are used, thinned.

    Returns:
        `(tasks, d)`, for `bayesmeta.checks.calibration.sbc_ecdf`.
    """
    return (thinned(draws, num) < truth).sum(0)


def nearer_shares(draws: Tensor, truth: Tensor, *, num: int = 99, generator: Generator | None = None) -> Tensor:
    """Share of draws that are nearer to a random point than the truth is, of each task: uniform on [0, 1].

    It sees what ranks of single coordinates cannot: coordinates that belong together in a wrong way. The points are
    normal about the mean of all truths, with their standard deviations, in units of which distances are taken.

    Returns:
        `(tasks,)`, ties broken by chance, for `bayesmeta.checks.calibration.pit_ecdf`.
    """
    kept = thinned(draws, num)
    centre, scale = truth.mean(0), truth.std(0)
    point = randn(truth.shape, like=truth, generator=generator)

    def distance(position: Tensor) -> Tensor:
        return ((position - centre) / scale - point).square().sum(-1)

    nearer = (distance(kept) < distance(truth)).sum(0)
    u = torch.rand(nearer.shape, dtype=truth.dtype, device=truth.device, generator=generator)
    return (nearer + u) / (num + 1.0)


@torch.no_grad()
def joint_simulation(
    kernel_of: Callable[[Tensor, Generator | None], Kernel],
    params: Tensor,
    *,
    num_rounds: int = 10,
    generator: Generator | None = None,
) -> Tensor:
    """Parameters `(tasks, d)` after rounds of new data and a step of a kernel: in law as they were, if it is exact.

    Each task is a chain of its own on the joint law of parameters and data, so that the result can be compared with
    other draws of the prior by any test of two samples.

    Args:
        kernel_of: the kernel for data drawn anew with parameters `(tasks, d)`.
        params: independent draws of the prior.
    """
    for _ in range(num_rounds):
        kernel = kernel_of(params, generator)
        state, _ = kernel.step(kernel.init(params[None]), generator)
        params = state.position[0]
    return params
