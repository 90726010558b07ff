"""Exact posteriors of many tasks: each by the cheapest way that passes its checks.

The ways are rungs of a ladder. Tasks whose draws fail a check go on to the next rung together; which rung a task ended
on is reported, and a task that passes nowhere is never silent.

Pareto's k alone does not see a mode that a proposal misses. So chains start apart, at ends of climbs from draws of the
reference, and have to forget where: one that begins at a missed mode stays there.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.doors import counted
from bayesmeta.mcmc.draws import Draws
from bayesmeta.mcmc.ladder.chains import Chains, Checks, checked
from bayesmeta.mcmc.ladder.higher_rungs import from_gradients, from_particles, one_by_one
from bayesmeta.mcmc.ladder.rungs import Request, Rung, from_learned, from_mode, from_several_modes
from bayesmeta.mcmc.targets import Proposal, Targets, evaluate
from bayesmeta.progress import tracked
from bayesmeta.warning_kinds import NotConvergedWarning, warn

__all__ = ["RUNGS", "sample"]

AT_ONCE = 2**21  # numbers of draws that are made together: 16 MB of float64
MOST_TASKS = 200  # of which chains move together
NUM_PROBES = 16  # draws of the reference at which a density is tried before anything else
LEARNED = "learned"
NAMED = 5  # tasks that a message names

OfPart = Callable[[Targets, Request, Tensor], Chains]  # a rung for some of the tasks, whose numbers it is told
RUNGS: dict[str, Rung] = {
    "laplace_t": from_mode,
    "several_starts": from_several_modes,
    "tempered": from_particles,
    "gradients": from_gradients,
    "nuts": one_by_one,
}


@counted(num_draws=4, num_chains=1)
def sample(
    targets: Targets,
    *,
    num_draws: int = 1000,
    num_chains: int = 4,
    learned: Proposal | None = None,
    unlike: Tensor | None = None,
    ladder: Sequence[str] = tuple(RUNGS),
    adapt: bool = True,
    checks: Checks = Checks(),  # noqa: B008 - frozen
    constrain: Callable[[Tensor], dict[str, Tensor]] | None = None,
    task_names: Sequence[Any] | None = None,
    progress: bool = True,
    generator: Generator | None = None,
) -> Draws:
    """Draws of the posterior of every task, corrected by Metropolis-Hastings and checked.

    Args:
        targets: the posteriors, unnormalised.
        num_draws: of each chain, all of which are kept: what adapts does so before.
        num_chains: of each task.
        learned: a proposal for each task that is tried first, such as an amortised one.
        unlike: which tasks are unlike those that it learned from `(T,)`: they begin on the next rung.
        ladder: ways to sample by name, in the order in which they are tried; see `RUNGS`.
        adapt: whether proposals are moved towards their targets by a hundred draws a chain first.
        checks: what draws must pass.
        constrain: from positions `(..., tasks, d)` to parameters by name.
        task_names: labels of the tasks; numbers unless given.
        progress: show a bar for each rung.

    Raises:
        ValueError: a density is plus infinity somewhere, or has no support where the reference has it; a rung has no
            such name; `unlike` is not of these tasks, or leaves some of them without a rung.

    Warns:
        NotConvergedWarning: tasks passed on no rung. Their draws are the last rung's, and `Draws.passed` is false.
    """
    rungs = _rungs(ladder, learned)
    far = _unlike(unlike, targets.num_tasks, learned, ladder)
    d = _probe(targets, generator)
    request = Request(num_draws, num_chains, adapt, generator)
    kept: Chains | None = None
    told = _Told.of(targets.num_tasks)
    left = torch.arange(targets.num_tasks)
    for number, (name, rung) in enumerate(rungs):
        asked = left[~far[left]] if name == LEARNED else left
        for part in tracked(_chunks(asked, request, d), f"{name}", shown=progress):
            chains = rung(targets[part], request, part)
            told.write(part, number, *checked(chains, checks))
            chains = chains.regrouped(num_chains, num_draws)
            kept = _empty(chains, targets.num_tasks) if kept is None else kept
            _write(kept, chains, part)
        left = (~told.passed).nonzero()[:, 0]
        if not len(left):
            break
    assert kept is not None
    if len(left):
        warn(_failed(left, told, task_names), NotConvergedWarning)
    names = tuple(name for name, _ in rungs)
    return Draws(kept, names, told.rung, told.passed, told.rhat, told.ess, constrain, task_names, far)


class _Told:
    """What is known of each task, written as rungs go on."""

    def __init__(self, rung: Tensor, passed: Tensor, rhat: Tensor, ess: Tensor) -> None:
        self.rung, self.passed, self.rhat, self.ess = rung, passed, rhat, ess

    @classmethod
    def of(cls, tasks: int) -> "_Told":
        nothing = torch.full((tasks,), torch.nan, dtype=torch.float64)
        return cls(torch.zeros(tasks, dtype=torch.long), torch.zeros(tasks, dtype=torch.bool), nothing, nothing.clone())

    def write(self, part: Tensor, rung: int, passed: Tensor, rhat: Tensor, ess: Tensor) -> None:
        self.rung[part], self.passed[part], self.rhat[part], self.ess[part] = rung, passed, rhat, ess


def _rungs(ladder: Sequence[str], learned: Proposal | None) -> list[tuple[str, OfPart]]:
    unknown = [name for name in ladder if name not in RUNGS]
    if unknown or not (ladder or learned is not None):
        raise ValueError(f"ladder must name some of {', '.join(RUNGS)}; got {', '.join(unknown) or 'none'}")

    def of_part(rung: Rung) -> OfPart:
        return lambda targets, request, part: rung(targets, request)

    named = [(name, of_part(RUNGS[name])) for name in ladder]
    if learned is None:
        return named
    return [(LEARNED, lambda targets, request, part: from_learned(targets, request, learned[part])), *named]


def _unlike(unlike: Tensor | None, tasks: int, learned: Proposal | None, ladder: Sequence[str]) -> Tensor:
    """Tasks that a learned proposal is not asked about, none where nothing is said."""
    if unlike is None:
        return torch.zeros(tasks, dtype=torch.bool)
    if learned is None or unlike.dtype != torch.bool or tuple(unlike.shape) != (tasks,):
        raise ValueError(
            f"unlike must say of each of {tasks} tasks, by a bool, whether a learned proposal is not to be asked; got "
            f"{unlike.dtype} of shape {tuple(unlike.shape)}{'' if learned is not None else ' and nothing learned'}"
        )
    if bool(unlike.any()) and not ladder:
        task = int(unlike.nonzero()[0, 0])
        raise ValueError(f"task {task} is unlike those learned from, and ladder has no other rung; name one")
    return unlike.cpu()


def _probe(targets: Targets, generator: Generator | None) -> int:
    """How many coordinates positions have. Densities that are plus infinity, or nowhere a number, are refused."""
    draws = targets.reference.sample_params(NUM_PROBES, generator=generator).double()
    with torch.no_grad():
        found = torch.cat([targets[part].log_density(draws[:, part]) for part in _parts(targets)], 1)
    infinite = (found == torch.inf).any(0)
    if bool(infinite.any()):
        task = int(infinite.nonzero()[0, 0])
        raise ValueError(f"log_density must be below infinity; task {task} has +inf at a draw of its reference")
    nowhere = ~(evaluate(targets, draws) > -torch.inf).any(0)
    if bool(nowhere.any()):
        task = int(nowhere.nonzero()[0, 0])
        kind = "NaN" if bool(found[:, task].isnan().all()) else "-inf"
        raise ValueError(
            f"log_density of task {task} is {kind} at all of {NUM_PROBES} draws of its reference; "
            "the reference must put draws where the density has support"
        )
    return draws.shape[-1]


def _parts(targets: Targets) -> tuple[Tensor, ...]:
    each = max(1, AT_ONCE // (NUM_PROBES * targets.width))
    return torch.arange(targets.num_tasks).split(each)


def _chunks(left: Tensor, request: Request, d: int) -> list[Tensor]:
    each = AT_ONCE // (request.num_draws * request.num_chains * d)
    return list(left.split(min(MOST_TASKS, max(1, each)))) if len(left) else []


def _empty(chains: Chains, tasks: int) -> Chains:
    return Chains(**{f.name: (v := getattr(chains, f.name)).new_empty(tasks, *v.shape[1:]) for f in fields(chains)})


def _write(kept: Chains, chains: Chains, part: Tensor) -> None:
    first, last = int(part[0]), int(part[-1]) + 1
    where: Any = slice(first, last) if last - first == len(part) else part
    for f in fields(kept):
        getattr(kept, f.name)[where] = getattr(chains, f.name)


def _failed(left: Tensor, told: _Told, names: Sequence[Any] | None) -> str:
    worst = left[told.rhat[left].nan_to_num(nan=torch.inf).argsort(descending=True)][:NAMED]
    each = ", ".join(
        f"{i if names is None else names[i]} (R-hat {told.rhat[i]:.2f}, ESS {told.ess[i]:.0f})" for i in worst.tolist()
    )
    more = ", ..." if len(left) > NAMED else ""
    return (
        f"draws of {len(left)} of {len(told.passed)} tasks are not to be trusted: tasks {each}{more}. Draws.passed "
        "says which; a longer run, a reference nearer to the posterior or other coordinates may help"
    )
