"""Exact posteriors of many tasks by Markov chains: targets, proposals, kernels, and the ladder that chooses."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Checks",
    "Densities",
    "Draws",
    "Hamiltonian",
    "Independence",
    "RandomWalk",
    "Resampling",
    "StudentMixture",
    "effective_size",
    "pareto_k",
    "rhat",
    "run",
    "sample",
]

if TYPE_CHECKING:
    from bayesmeta.mcmc.diagnostics import effective_size, pareto_k, rhat
    from bayesmeta.mcmc.draws import Draws
    from bayesmeta.mcmc.kernels.hamiltonian import Hamiltonian
    from bayesmeta.mcmc.kernels.independence import Independence, Resampling
    from bayesmeta.mcmc.kernels.protocol import run
    from bayesmeta.mcmc.kernels.random_walk import RandomWalk
    from bayesmeta.mcmc.ladder.chains import Checks
    from bayesmeta.mcmc.ladder.sampling import sample
    from bayesmeta.mcmc.proposals.student import StudentMixture
    from bayesmeta.mcmc.targets import Densities
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Checks": "ladder.chains",
            "Densities": "targets",
            "Draws": "draws",
            "Hamiltonian": "kernels.hamiltonian",
            "Independence": "kernels.independence",
            "RandomWalk": "kernels.random_walk",
            "Resampling": "kernels.independence",
            "StudentMixture": "proposals.student",
            "effective_size": "diagnostics",
            "pareto_k": "diagnostics",
            "rhat": "diagnostics",
            "run": "kernels.protocol",
            "sample": "ladder.sampling",
        },
    )
