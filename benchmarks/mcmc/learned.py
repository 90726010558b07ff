"""Whether learned proposals are worth their training: effective draws per draw and per CPU-second, rung against rung.

The problems are those that defeat a Gaussian at a mode: two modes, skew, and a hierarchical scale. Each method is one
rung alone, with the same tasks and the same number of draws; their turns alternate, and the clock is that of the
process. A proposal counts as it stands after training and as it was before.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.amortised import AmortisedProposal, ProposalSchedule
from bayesmeta.mcmc import Draws, sample
from bayesmeta.warning_kinds import NotConvergedWarning
from benchmarks.mcmc.problems.bimodal import Bimodal
from benchmarks.mcmc.problems.few_rows import FewRows
from benchmarks.mcmc.problems.groups import Groups
from benchmarks.mcmc.problems.simulated import Problem, Truth

__all__ = ["METHODS", "PROBLEMS", "SCHEDULE", "SIZES", "Tally", "measured", "summary_of", "trained"]

PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in (Bimodal(), FewRows(), Groups())}
SIZES: dict[str, dict[str, int]] = {
    "bimodal": {"num_components": 4},
    "skew": {"num_components": 10},
    "groups": {"num_components": 8},
}
SCHEDULE = ProposalSchedule(num_steps=4000, num_tasks=128, rate=4e-3)
METHODS = ("laplace_t", "several_starts", "untrained", "learned")
BASELINES = ("laplace_t", "several_starts")


def trained(
    problem: Problem, schedule: ProposalSchedule = SCHEDULE
) -> tuple[AmortisedProposal, AmortisedProposal, float]:
    """A proposal before and after it has learned, and the CPU-seconds that took."""
    generator = Generator().manual_seed(0)
    start = time.process_time()
    before = AmortisedProposal.initial(
        problem.simulate, categories=problem.categories, generator=generator, **SIZES[problem.name]
    )
    after = before.fit(problem.simulate, schedule=schedule, generator=generator, progress=False)
    return before, after, time.process_time() - start


@dataclass
class Tally:
    """What a method has done so far.

    Args:
        cpu_s: spent.
        num_draws: kept, of all tasks.
        ess: bulk effective draws of the worst coordinate, of each task.
        passed: whether a task passed the checks of the ladder.
        pareto_k: of each task.
        z: of posterior means against the truth, in standard errors, the worst coordinate of each task.
        off: error of the share of a mode, where there are two.
    """

    cpu_s: float = 0.0
    num_draws: int = 0
    ess: list[float] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    pareto_k: list[float] = field(default_factory=list)
    z: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)

    def add(self, draws: Draws, cpu_s: float, truth: Truth, share: Tensor | None) -> None:
        size = draws.ess_bulk
        least = size.amin(-1)
        position = draws.position
        error = (truth.sd.square() / size + truth.error.square()).sqrt()
        self.cpu_s += cpu_s
        self.num_draws += position[..., 0].numel()
        self.ess += least.tolist()
        self.passed += draws.passed.tolist()
        self.pareto_k += draws.chains.pareto_k.tolist()
        self.z += ((position.mean((0, 1)) - truth.mean).abs() / error).amax(-1).tolist()
        if share is not None:
            self.off += ((position[..., 0] < 0).double().mean((0, 1)) - share).abs().tolist()


def measured(
    problem: Problem,
    before: AmortisedProposal,
    after: AmortisedProposal,
    *,
    num_tasks: int = 100,
    num_rounds: int = 3,
    methods: Sequence[str] = METHODS,
) -> dict[str, Tally]:
    """The methods in turns, each round with new tasks that are the same for all."""
    found = {name: Tally() for name in methods}
    for turn in range(num_rounds):
        _, rows, mask = problem.simulate(num_tasks, Generator().manual_seed(1000 + turn))
        truth = problem.truth(rows, mask)
        share = problem.share_below_zero(rows, mask) if isinstance(problem, Bimodal) else None
        for name in methods:
            ask = _asked(name, {"untrained": before, "learned": after}, problem, rows, mask)
            draws, cpu_s = _timed(ask)
            found[name].add(draws, cpu_s, truth, share)
    return found


def _asked(
    name: str, proposals: dict[str, AmortisedProposal], problem: Problem, rows: Tensor, mask: Tensor
) -> Callable[[], Draws]:
    def ask() -> Draws:
        how: dict[str, Any] = {"ladder": [name]}
        if name not in BASELINES:
            how = {"ladder": [], "learned": proposals[name](rows, mask)}
        return sample(problem.targets(rows, mask), progress=False, generator=Generator().manual_seed(0), **how)

    return ask


def _timed(ask: Callable[[], Draws]) -> tuple[Draws, float]:
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # one rung alone may fail: that is counted
        draws = ask()
    return draws, time.process_time() - start


def summary_of(tallies: dict[str, Tally], training_s: float) -> dict[str, dict[str, float]]:
    """Figures of each method; tasks that repay the training are those that save its CPU-seconds at equal ESS."""
    found = {}
    best = tallies.get("learned")
    for name, tally in tallies.items():
        ess, z = torch.tensor(tally.ess), torch.tensor(tally.z)
        figures = {
            "ess_per_cpu_s": float(ess.sum()) / tally.cpu_s,
            "ess_per_draw": float(ess.sum()) / tally.num_draws,
            "ess_p5_per_1000": float(ess.quantile(0.05)) * 1000.0 * len(ess) / tally.num_draws,
            "cpu_ms_per_task": 1000.0 * tally.cpu_s / len(ess),
            "passed": sum(tally.passed) / len(tally.passed),
            "pareto_k_max": max(tally.pareto_k),
            "passed_but_off": float(((z > 5.0) & torch.tensor(tally.passed)).double().mean()),
        }
        if tally.off:
            off = torch.tensor(tally.off)
            figures |= {
                "share_off_median": float(off.median()),
                "share_off_3_points": float((off > 0.03).double().mean()),
            }
        if best is not None and name != "learned":
            # CPU-seconds for as many effective draws of a task as the learned proposal makes
            saved = float(torch.tensor(best.ess).sum()) / figures["ess_per_cpu_s"] - best.cpu_s
            figures["tasks_that_repay"] = training_s * len(ess) / saved if saved > 0 else float("inf")
        found[name] = figures
    return found
