"""Learned block proposals in models that they never saw, against samplers that learn nothing, by the same CPU time.

    OMP_NUM_THREADS=1 python -m benchmarks.mcmc.motifs --budget quick

Each model is sampled by each method for as many seconds of the process; methods take turns, model by model. What is
compared is the mean absolute error of the nodes' probabilities by the later half of the draws, against exact ones.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.gibbs import to_bits
from bayesmeta.motifs.grids.exact import eliminated
from bayesmeta.motifs.grids.kernels import BlockSweeps, RowSweeps
from bayesmeta.motifs.grids.motif import GridMotif
from bayesmeta.motifs.grids.moves import ExactMove, LearnedMove
from bayesmeta.motifs.grids.network import GridNetwork, random_grids, single_site
from bayesmeta.motifs.learning import MotifSchedule, learn
from bayesmeta.motifs.networks import BernoulliProposal

__all__ = ["grid_rows", "rows"]

Move = Callable[[Tensor, Generator], Any]


class GridSizes(NamedTuple):
    num_models: int = 20
    side: int = 9
    chains: int = 200
    seconds: tuple[float, ...] = (0.5, 2.0)
    num_steps: int = 4000
    determinism: tuple[float, float] = (0.0, 1.0)


BUDGETS = {
    "quick": GridSizes(num_models=4, side=6, chains=50, seconds=(0.1, 0.3), num_steps=100),
    "full": GridSizes(),
}


def rows(budget: str = "quick") -> list[dict[str, Any]]:
    """Of each application."""
    return grid_rows(BUDGETS[budget])


def grid_rows(sizes: GridSizes, proposal: BernoulliProposal | None = None) -> list[dict[str, Any]]:
    """Errors of each method, and in how many models the learned one errs less than it."""
    proposal, training = (proposal, 0.0) if proposal else trained(sizes.num_steps)
    low, high = sizes.determinism
    shares = torch.linspace(low, high, sizes.num_models, dtype=torch.float64)
    network = random_grids(sizes.num_models, sizes.side, sizes.side, shares, generator=Generator().manual_seed(1))
    exact, _ = eliminated(network)
    found: dict[str, Tensor] = {}
    for model in range(sizes.num_models):
        one, truth = network[model : model + 1], exact[model].flatten()
        for name, move in methods(one.to(torch.float32), proposal).items():
            errors = torch.tensor(errors_after(move, truth, sizes, model))
            found[name] = torch.cat([found.get(name, errors.new_empty(0, len(errors))), errors[None]])
    learned = found["learned"]
    return [
        {
            "application": "grid",
            "method": name,
            "cpu_s": seconds,
            "error": float(each[:, i].mean()),
            "median_error": float(each[:, i].median()),
            "learned_wins": int((learned[:, i] < each[:, i]).sum()) if name != "learned" else None,
            "models": sizes.num_models,
            "training_s": training if name == "learned" else 0.0,
        }
        for name, each in found.items()
        for i, seconds in enumerate(sizes.seconds)
    ]


def trained(num_steps: int) -> tuple[BernoulliProposal, float]:
    """A proposal for 3 x 3 blocks, and the CPU seconds that it took."""
    motif, began = GridMotif(), time.process_time()
    start = BernoulliProposal.initial(num_inputs=motif.num_inputs, num_values=motif.num_values)
    learned = learn(start, motif, MotifSchedule(num_steps), generator=Generator().manual_seed(0))
    return learned, time.process_time() - began


def methods(network: GridNetwork, proposal: BernoulliProposal) -> dict[str, Move]:
    """Of one model: each changes bits in place."""
    return {
        "learned": BlockSweeps(network, LearnedMove(proposal)).move,
        "single_site": single_site(network).move,
        "rows": RowSweeps(network).move,
        "exact_2x2": BlockSweeps(network, ExactMove(), 2, 2).move,
        "exact_3x3": BlockSweeps(network, ExactMove()).move,
    }


@torch.no_grad()
def errors_after(move: Move, truth: Tensor, sizes: GridSizes, number: int) -> list[float]:
    """Mean absolute error of the later half of the draws, after each number of seconds."""
    generator = Generator().manual_seed(100 + number)
    start = torch.randint(2, (sizes.chains, 1, len(truth)), generator=generator).double()
    bits, sums, errors = to_bits(start), [torch.zeros(len(truth))], []
    move(bits.clone(), generator)  # what is computed once
    began = time.process_time()
    for seconds in sizes.seconds:
        while time.process_time() - began < seconds:
            move(bits, generator)
            sums.append(sums[-1] + bits[:-1, 0].float().mean(-1))
        half = len(sums) // 2
        mean = (sums[-1] - sums[half]) / max(1, len(sums) - 1 - half)
        errors.append(float((mean.double() - truth).abs().mean()))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    torch.set_num_threads(1)
    for row in rows(parser.parse_args().budget):
        print(row)


if __name__ == "__main__":
    main()
