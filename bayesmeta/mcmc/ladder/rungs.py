"""Ways to sample a chunk of tasks by independent proposals, the cheapest first: the lower rungs of the ladder."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.diagnostics import pareto_k
from bayesmeta.mcmc.kernels.independence import accept_in_turn
from bayesmeta.mcmc.ladder.chains import Chains, weighted_evidence
from bayesmeta.mcmc.proposals.adapted import adapted
from bayesmeta.mcmc.proposals.defended import defended
from bayesmeta.mcmc.proposals.laplace import best_mode, distinct_modes, log_evidence
from bayesmeta.mcmc.proposals.modes import Modes, climb
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.mcmc.targets import Proposal, Targets, evaluate

__all__ = ["Ends", "Request", "Rung", "by_proposal", "from_learned", "from_mode", "from_several_modes"]

PILOT = 100  # draws of each chain by which a proposal is adapted, and on which chains warm up
NUM_POINTS = 128  # draws of the reference among which starts are chosen
NUM_STARTS, STARTS_AT_ONCE = 17, 4  # climbs of the rung of several starts
DEFENCE = 0.05  # share of the reference there
LEAST_MASS = 1e-3  # of a posterior, for a chain to begin at


@dataclass(frozen=True)
class Request:
    """What a rung is asked for.

    Args:
        num_draws: of each chain, kept.
        num_chains: of each task.
        adapt: whether proposals are adapted before draws are kept.
        generator: of all draws.
    """

    num_draws: int
    num_chains: int
    adapt: bool = True
    generator: Generator | None = None


Rung = Callable[[Targets, Request], Chains]


def from_mode(targets: Targets, request: Request) -> Chains:
    """A Student t about one mode; chains start where climbs from points that it explains worst have ended."""
    search = Search.of(targets, NUM_POINTS, request.generator)
    search.climb_from(1)
    proposal = best_mode(search.modes)
    search.climb_from(max(1, request.num_chains - 1))
    return by_proposal(targets, proposal, search.ends(request.num_chains), request)


def from_several_modes(targets: Targets, request: Request) -> Chains:
    """A Student t about each mode that many climbs find, and a share of the reference."""
    search = Search.of(targets, 4 * NUM_POINTS, request.generator)
    search.climb_from(1)
    while len(search.modes.loc) < max(NUM_STARTS, request.num_chains):
        search.climb_from(STARTS_AT_ONCE)
    return by_proposal(targets, distinct_modes(search.modes), search.ends(request.num_chains), request, defence=DEFENCE)


def from_learned(targets: Targets, request: Request, proposal: Proposal) -> Chains:
    """A proposal that was learned before, and a share of the reference."""
    search = Search.of(targets, NUM_POINTS, request.generator)
    search.climb_from(request.num_chains, proposal)
    return by_proposal(targets, proposal, search.ends(request.num_chains), request, defence=DEFENCE)


@dataclass
class Search:
    """Climbs from draws of a reference, those first of which the modes found so far explain least.

    Such a draw has a density that is large for its distance from all of them, so it is likely to be of another mode.

    Args:
        targets: what is climbed.
        points: draws of the reference `(n, T, d)`.
        log_density: there `(n, T)`.
        modes: where climbs have ended.
    """

    targets: Targets
    points: Tensor
    log_density: Tensor
    modes: Modes

    @classmethod
    def of(cls, targets: Targets, num_points: int, generator: Generator | None) -> "Search":
        points = targets.reference.sample_params(num_points, generator=generator).double()
        return cls(targets, points, evaluate(targets, points), Modes.none(points))

    @torch.no_grad()
    def climb_from(self, num: int, proposal: Proposal | None = None) -> None:
        """Climb from `num` more points: the most probable ones, or those that what was found explains least."""
        if proposal is None and len(self.modes.loc):
            proposal = distinct_modes(self.modes)
        least = self.log_density if proposal is None else self.log_density - proposal.log_prob(self.points)
        chosen = least.nan_to_num(nan=-torch.inf, posinf=torch.inf).topk(min(num, len(least)), 0).indices
        starts = self.points.gather(0, chosen[..., None].expand(*chosen.shape, self.points.shape[-1]))
        self.modes = self.modes + climb(self.targets, starts)
        self.log_density = self.log_density.scatter(0, chosen, -torch.inf)  # each is climbed from once

    def ends(self, num: int) -> "Ends":
        """Where the last climbs ended, the first of these again where there were fewer."""
        found = Ends(self.modes.loc[-num:], log_evidence(self.modes)[-num:])
        more = num - len(found.loc)
        return Ends(
            *(torch.cat([part, part[:1].expand(more, *part.shape[1:])]) for part in (found.loc, found.log_mass))
        )


@dataclass(frozen=True)
class Ends:
    """Places that lie apart `(C, T, d)`, and the log of the mass about each `(C, T)`.

    A mode may be a spike, whose density is far above that of any draw and whose mass is next to nothing, as that of a
    hierarchical scale near zero. A chain that begins there never leaves, whatever is proposed, and says nothing.
    """

    loc: Tensor
    log_mass: Tensor

    def with_mass(self, draws: Tensor, log_weights: Tensor) -> Tensor:
        """Places that have at least `LEAST_MASS` of what weighted draws `(n, T, d)` find, and draws for the others."""
        total, _ = weighted_evidence(log_weights)
        enough = ~(self.log_mass < total + math.log(LEAST_MASS))
        return torch.where(enough[..., None], self.loc, draws[: len(self.loc)])


@torch.no_grad()
def by_proposal(targets: Targets, proposal: Proposal, apart: Ends, request: Request, *, defence: float = 0.0) -> Chains:
    """Independence Metropolis-Hastings, from places apart, by a proposal that is adapted and then frozen.

    The draws by which it is adapted are the warm-up of the chains: a chain that does not leave its start shows that
    the proposal misses what lies there.
    """
    g, chains = request.generator, request.num_chains
    frozen, here = proposal, None
    if request.adapt:
        first = defended(proposal, targets.reference, defence)
        draws, log_q = drawn(first, PILOT * chains, g)
        log_p = evaluate(targets, draws)
        here = Start.at(targets, apart.with_mass(draws, log_p - log_q))
        here = here.moved(first, draws, log_p, log_q, g)
        frozen = adapted(proposal, draws, log_p - log_q) if isinstance(proposal, StudentMixture) else proposal
    frozen = defended(frozen, targets.reference, defence)
    draws, log_q = drawn(frozen, request.num_draws * chains, g)
    log_p = evaluate(targets, draws)
    here = here or Start.at(targets, apart.with_mass(draws, log_p - log_q))
    return here.chains(frozen, draws, log_p, log_q, g)


def drawn(proposal: Proposal, num: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Draws `(num, T, d)` and their log density."""
    if isinstance(proposal, StudentMixture):
        return proposal.draw(num, generator=generator)
    draws = proposal.sample_params(num, generator=generator).double()
    return draws, proposal.log_prob(draws)


@dataclass(frozen=True)
class Start:
    """Where chains are `(C, T, d)`, and the log density of their targets there `(C, T)`."""

    position: Tensor
    log_density: Tensor

    @classmethod
    def at(cls, targets: Targets, position: Tensor) -> "Start":
        return cls(position, evaluate(targets, position))

    def moved(
        self, proposal: Proposal, draws: Tensor, log_p: Tensor, log_q: Tensor, generator: Generator | None
    ) -> "Start":
        """Where the chains are after all of the draws."""
        places, _ = self._places(proposal, log_p - log_q, generator)
        last, chains = places[-1:].clamp(min=0), len(self.position)
        moved = places[-1] >= 0
        d = draws.shape[-1]
        steps = draws.unflatten(0, (-1, chains))
        to = steps.gather(0, last[..., None].expand(*last.shape, d))[0]
        density = log_p.unflatten(0, (-1, chains)).gather(0, last)[0]
        return Start(torch.where(moved[..., None], to, self.position), torch.where(moved, density, self.log_density))

    def chains(
        self, proposal: Proposal, draws: Tensor, log_p: Tensor, log_q: Tensor, generator: Generator | None
    ) -> Chains:
        """The chains of all draws."""
        log_weights = log_p - log_q
        places, rates = self._places(proposal, log_weights, generator)
        chains = len(self.position)
        here_q = proposal.log_prob(self.position)
        steps, _, tasks = places.shape
        before = torch.cat([torch.full_like(places[:1], -1), places[:-1]])
        index = places.permute(2, 1, 0)  # (T, C, S)

        def at(values: Tensor, start: Tensor) -> Tensor:
            """Of values `(T, C, S)` along the chains."""
            return torch.where(index >= 0, values.gather(-1, index.clamp(min=0)), start[..., None])

        def by_task(values: Tensor) -> Tensor:
            return values.unflatten(0, (steps, chains)).permute(2, 1, 0)

        position = draws.new_empty(tasks, draws.shape[-1], chains, steps)
        for i in range(draws.shape[-1]):
            position[:, i] = at(by_task(draws[..., i]), self.position[..., i].mT)
        evidence, error = weighted_evidence(log_weights)
        return Chains(
            position,
            at(by_task(log_p), self.log_density.mT),
            at(by_task(log_q), here_q.mT),
            rates.float().permute(2, 1, 0),
            (places != before).permute(2, 1, 0),
            pareto_k(log_weights),
            evidence,
            error,
        )

    def _places(self, proposal: Proposal, log_weights: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        start = self.log_density - proposal.log_prob(self.position)
        start = start.nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf)
        return accept_in_turn(log_weights.unflatten(0, (-1, len(start))), start, generator)
