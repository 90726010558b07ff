"""The upper rungs of the ladder: tempering where proposals miss modes, and gradients where no proposal fits."""

import torch
from torch import Tensor

from bayesmeta.mcmc.kernels.hamiltonian import Hamiltonian, warm_up
from bayesmeta.mcmc.kernels.nuts import nuts_draws
from bayesmeta.mcmc.kernels.protocol import run
from bayesmeta.mcmc.ladder.chains import Chains
from bayesmeta.mcmc.ladder.rungs import DEFENCE, Ends, Request, by_proposal
from bayesmeta.mcmc.proposals.modes import uphill_factor
from bayesmeta.mcmc.proposals.tempered import fitted_mixture, spread_out, tempered_particles
from bayesmeta.mcmc.targets import Targets, evaluate

__all__ = ["from_gradients", "from_particles", "one_by_one"]

WARM_UP = 150  # steps in which step sizes are found
SHORT_CHAINS = 8  # for each chain that is asked for: whether all modes are in proportion shows by many starts
NUTS_WARM_UP = 500
FIRST_STEP = 0.5


def from_particles(targets: Targets, request: Request) -> Chains:
    """Independence chains by a mixture that is fitted to particles, which have come from the reference by tempering."""
    particles = tempered_particles(targets, generator=request.generator)
    mixture = fitted_mixture(particles, generator=request.generator)
    starts = spread_out(particles, request.num_chains, request.generator)
    ends = Ends(starts, torch.full_like(starts[..., 0], torch.inf))  # each stands for many
    return by_proposal(targets, mixture, ends, request, defence=DEFENCE)


def from_gradients(targets: Targets, request: Request) -> Chains:
    """Hamiltonian chains from particles, in units of their spread: more and shorter ones than asked for."""
    particles = tempered_particles(targets, generator=request.generator)
    centred = (particles - particles.mean(0)).movedim(0, -1)
    root, _ = uphill_factor(centred @ centred.mT / len(particles))
    size = torch.full_like(root[:, 0, 0], FIRST_STEP)
    kernel = Hamiltonian(targets, root, size)
    chains = min(SHORT_CHAINS * request.num_chains, len(particles))
    state = kernel.init(particles[:chains])
    kernel, state = warm_up(kernel, state, WARM_UP, request.generator)
    num_draws = -(-request.num_draws * request.num_chains // chains)
    _, positions, densities, info = run(kernel, state, num_draws, request.generator)
    return _without_proposal(positions, densities, info.acceptance_rate, info.is_accepted)


def one_by_one(targets: Targets, request: Request) -> Chains:
    """The No-U-Turn sampler for each task by itself, from particles."""
    particles = tempered_particles(targets, generator=request.generator)
    starts = spread_out(particles, request.num_chains, request.generator)
    found = []
    for task in range(targets.num_tasks):
        alone = targets[torch.tensor([task])]
        chains = [
            nuts_draws(alone, start, request.num_draws, NUTS_WARM_UP, request.generator) for start in starts[:, task]
        ]
        found.append(torch.stack(chains, 1))
    positions = torch.stack(found, 2)  # (draws, chains, tasks, d)
    densities = evaluate(targets, positions.flatten(0, 1)).unflatten(0, positions.shape[:2])
    moved = (positions.diff(dim=0, prepend=starts[None]) != 0).any(-1)
    return _without_proposal(positions, densities, torch.full_like(densities, torch.nan), moved)


def _without_proposal(positions: Tensor, densities: Tensor, rates: Tensor, accepted: Tensor) -> Chains:
    """Chains of kernels, from `(draws, chains, T, d)` and alike."""

    def tasks_first(values: Tensor) -> Tensor:
        return values.permute(2, 1, 0)

    none = densities.new_full(densities.shape[2:], torch.nan)
    return Chains(
        positions.permute(2, 3, 1, 0).contiguous(),
        tasks_first(densities).contiguous(),
        torch.full_like(tasks_first(densities), torch.nan),
        tasks_first(rates).float(),
        tasks_first(accepted),
        none,
        none,
        none,
    )
