"""Learned block proposals in models that they never saw, against samplers that learn nothing, by the same CPU time.

    OMP_NUM_THREADS=1 python -m benchmarks.mcmc.motifs --budget quick

Each model is sampled by each method for as many seconds of the process; methods take turns, model by model. What is
compared is the mean absolute error of probabilities by the later half of the draws: of the nodes of a grid, against
exact ones; and of each two points of a mixture to share a component, against long runs that learn nothing.
"""

import argparse
import time
from collections.abc import Callable, Sequence
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
from bayesmeta.motifs.partitions.kernels import PartitionSweeps
from bayesmeta.motifs.partitions.learned import LearnedDeal, SplitProposal, learn_splits
from bayesmeta.motifs.partitions.model import Partitions, random_partitions
from bayesmeta.motifs.partitions.scans import Scans

__all__ = ["grid_rows", "partition_rows", "rows"]

Step = Callable[[Tensor, Generator], Tensor]  # from where chains are to where they go
Summary = Callable[[Tensor], Tensor]  # the mean over chains of what is estimated


class GridSizes(NamedTuple):
    num_models: int = 20
    side: int = 9
    chains: int = 200
    seconds: tuple[float, ...] = (0.5, 2.0)
    num_steps: int = 4000


class PartitionSizes(NamedTuple):
    num_models: int = 20
    num_points: int = 60
    chains: int = 200
    seconds: tuple[float, ...] = (1.0, 4.0)
    reference_seconds: float = 20.0
    num_steps: int = 3000


BUDGETS = {
    "quick": (
        GridSizes(num_models=4, side=6, chains=50, seconds=(0.1, 0.3), num_steps=100),
        PartitionSizes(2, num_points=20, chains=50, seconds=(0.2, 0.5), reference_seconds=1.0, num_steps=100),
    ),
    "full": (GridSizes(), PartitionSizes()),
}


def rows(budget: str = "quick") -> list[dict[str, Any]]:
    """Of each application and method."""
    grid, partition = BUDGETS[budget]
    return [*grid_rows(grid), *partition_rows(partition)]


def grid_rows(sizes: GridSizes, proposal: BernoulliProposal | None = None) -> list[dict[str, Any]]:
    """Errors of each method, and in how many models the learned one errs less than it."""
    proposal, training = (proposal, 0.0) if proposal else trained_blocks(sizes.num_steps)
    shares = torch.linspace(0.0, 1.0, sizes.num_models, dtype=torch.float64)
    network = random_grids(sizes.num_models, sizes.side, sizes.side, shares, generator=Generator().manual_seed(1))
    exact, _ = eliminated(network)
    found = []
    for model in range(sizes.num_models):
        one, truth = network[model : model + 1].to(torch.float32), exact[model].flatten()
        generator = Generator().manual_seed(100 + model)
        start = to_bits(torch.randint(2, (sizes.chains, 1, len(truth)), generator=generator).double())
        steps = grid_steps(one, proposal)
        found.append(
            {name: errors_after(step, start, of_nodes, truth, sizes.seconds, model) for name, step in steps.items()}
        )
    return told("grid", found, sizes.seconds, training)


def partition_rows(sizes: PartitionSizes, proposal: SplitProposal | None = None) -> list[dict[str, Any]]:
    """The same of mixtures with an unknown number of components."""
    proposal, training = (proposal, 0.0) if proposal else trained_splits(sizes.num_steps)
    models = random_partitions(sizes.num_models, sizes.num_points, generator=Generator().manual_seed(2))
    found = []
    for model in range(sizes.num_models):
        one = models[model : model + 1]
        start = torch.zeros(sizes.chains, 1, sizes.num_points, dtype=torch.long)
        reference = PartitionSweeps(one, Scans(), 2)
        long = (sizes.reference_seconds,)
        truth = mean_after(lambda x, g, r=reference: r.move(x, g)[0], start, of_pairs, long, 1000 + model)[0]
        steps = partition_steps(one, proposal)
        found.append(
            {name: errors_after(step, start, of_pairs, truth, sizes.seconds, model) for name, step in steps.items()}
        )
    return told("partition", found, sizes.seconds, training)


def trained_blocks(num_steps: int) -> tuple[BernoulliProposal, float]:
    """A proposal for 3 x 3 blocks, and the CPU seconds that it took."""
    motif, began = GridMotif(), time.process_time()
    start = BernoulliProposal.initial(num_inputs=motif.num_inputs, num_values=motif.num_values)
    learned = learn(start, motif, MotifSchedule(num_steps), generator=Generator().manual_seed(0))
    return learned, time.process_time() - began


def trained_splits(num_steps: int) -> tuple[SplitProposal, float]:
    """A proposal for splits, and the CPU seconds that it took."""
    began = time.process_time()
    schedule = MotifSchedule(num_steps, num_blocks=128)
    learned = learn_splits(SplitProposal.initial(), schedule, generator=Generator().manual_seed(0))
    return learned, time.process_time() - began


def grid_steps(network: GridNetwork, proposal: BernoulliProposal) -> dict[str, Step]:
    """Of one model."""
    blocks = {
        "learned": BlockSweeps(network, LearnedMove(proposal)),
        "exact_2x2": BlockSweeps(network, ExactMove(), 2, 2),
        "exact_3x3": BlockSweeps(network, ExactMove()),
    }
    in_blocks = {name: lambda x, g, k=kernel: k.move(x, g)[0] for name, kernel in blocks.items()}
    return {**in_blocks, "single_site": single_site(network).move, "rows": RowSweeps(network).move}


def partition_steps(model: Partitions, proposal: SplitProposal) -> dict[str, Step]:
    """Of one model: splits and merges are as many as cost no more than updates of all points."""
    kernels = {
        "learned": PartitionSweeps(model, LearnedDeal(proposal), 5),
        "single_site": PartitionSweeps(model),
        "jain_neal": PartitionSweeps(model, Scans(3), 1),
        "sequential": PartitionSweeps(model, Scans(), 2),
    }
    return {name: lambda x, g, k=kernel: k.move(x, g)[0] for name, kernel in kernels.items()}


def of_nodes(bits: Tensor) -> Tensor:
    """Shares of ones."""
    return bits[:-1, 0].float().mean(-1).double()


def of_pairs(labels: Tensor) -> Tensor:
    """Shares of chains in which two points have one label."""
    each = torch.nn.functional.one_hot(labels[:, 0]).float().movedim(0, 1).flatten(1)
    both = each @ each.mT / len(labels)
    return both[tuple(torch.triu_indices(*both.shape, 1))].double()


@torch.no_grad()
def mean_after(step: Step, start: Tensor, summary: Summary, seconds: Sequence[float], number: int) -> list[Tensor]:
    """Means of the later half of the steps, after each number of CPU seconds."""
    generator, here = Generator().manual_seed(number), start.clone()
    step(start.clone(), generator)  # what is computed once
    sums, means = [torch.zeros_like(summary(start))], []
    began = time.process_time()
    for limit in seconds:
        while time.process_time() - began < limit:
            here = step(here, generator)
            sums.append(sums[-1] + summary(here))
        half = len(sums) // 2
        means.append((sums[-1] - sums[half]) / max(1, len(sums) - 1 - half))
    return means


def errors_after(
    step: Step, start: Tensor, summary: Summary, truth: Tensor, seconds: Sequence[float], number: int
) -> list[float]:
    """Mean absolute errors of these."""
    return [float((mean - truth).abs().mean()) for mean in mean_after(step, start, summary, seconds, number)]


def told(
    application: str, found: list[dict[str, list[float]]], seconds: Sequence[float], training: float
) -> list[dict[str, Any]]:
    """A row of each method and number of seconds."""
    made = []
    for name in found[0]:
        for i, limit in enumerate(seconds):
            errors = sorted(each[name][i] for each in found)
            wins = sum(each["learned"][i] < each[name][i] for each in found)
            made.append(
                {
                    "application": application,
                    "method": name,
                    "cpu_s": limit,
                    "error": sum(errors) / len(errors),
                    "median_error": errors[len(errors) // 2],
                    "learned_wins": wins if name != "learned" else None,
                    "models": len(found),
                    "training_s": training if name == "learned" else 0.0,
                }
            )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    torch.set_num_threads(1)
    for row in rows(parser.parse_args().budget):
        print(row)


if __name__ == "__main__":
    main()
