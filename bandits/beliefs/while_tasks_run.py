r"""Tasks of any hierarchical family that run together: each teaches the others the hyperparameters they share.

What is known of the hyperparameters is weighted draws of them (`bayesmeta.Hyperposterior`). Each task that runs adds
the log evidence of its rows to the log weights, and draws are renewed where few of them count any more. Where each arm
has a posterior of its own, hyperparameters are of that arm in all tasks, and arms learn apart.

What a task does with it, `how`:

- "redraw": a draw of hyperparameters, given all that every task has shown, for every decision (HierTS);
- "marginal": hyperparameters given what was known when the task began and what it has shown itself (AdaTS);
- "keep": one draw given what was known when the task began (MetaTS).

Source: Hong et al., Hierarchical Bayesian bandits (2022); Basu et al., No regrets for learning the prior in bandits
(2021); Kveton et al., Meta-Thompson sampling (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.beliefs.wrapped import ExpandableSums, LearnedByTasks, entries, tasks_of
from bayesmeta.hyperparameters.hyperposterior import LEAST_ESS, Hyperposterior, weighted_draws
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.mixture import Mixture
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task, distinct
from bayesmeta.online.sums import RowStatistics, statistics_from, statistics_state
from bayesmeta.protocol import num_arms_of
from bayesmeta.random import categorical

__all__ = ["Running", "require_how"]

HOW = ("redraw", "marginal", "keep")
NUM_DRAWS = 200  # of hyperparameters
NUM_KEPT = 50  # draws by which a task remembers what was known when it began


def require_how(how: str) -> None:
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}; got {how!r}")


@runtime_checkable
class Shared(ExpandableSums, Hierarchical, Protocol):
    """A prior whose hyperparameters are of all tasks, and whose rows are known through sums."""


@dataclass(frozen=True, eq=False)
class Running(LearnedByTasks):
    """The prior of tasks that run together, learned from past tasks and from each other.

    Args:
        centre: of the hyperprior, a family that is `Hierarchical` and has additive statistics.
        past: the state of the past tasks' statistics.
        draws: of hyperparameters, given the past tasks `(draws, h)`.
        log_weights: of them.
        how: see the module.
    """

    centre: Shared
    past: dict[str, Any]
    draws: Tensor
    log_weights: Tensor
    how: str

    def __post_init__(self) -> None:
        require_how(self.how)

    @classmethod
    def of(cls, hyperposterior: Hyperposterior, how: str, *, num_draws: int = NUM_DRAWS) -> "Running":
        """As many draws of `hyperposterior` as a policy can afford.

        Raises:
            ValueError: it was not made by `Hyperposterior.fit`, or of a family without additive statistics.
        """
        if hyperposterior.source is None:
            raise ValueError("tasks can only run together on a hyperposterior that Hyperposterior.fit made")
        centre, tasks = hyperposterior.source
        if not isinstance(centre, Shared):
            raise ValueError(
                f"tasks that run together need a family with additive statistics; {type(centre).__name__} has none. "
                "Use hyperposterior.marginal() as the prior of each task"
            )
        past = statistics_state(centre.statistics(tasks))
        assert past is not None
        chosen = categorical(num_draws, hyperposterior.log_weights, generator=Generator().manual_seed(0))
        even = torch.full((num_draws,), 1.0 / num_draws, dtype=torch.float64).log()
        return cls(centre, past, hyperposterior.draws[chosen], even, how)

    @property
    def event_shape(self) -> torch.Size:
        shape: torch.Size = self.centre.event_shape
        return shape

    @property
    def num_arms(self) -> int | None:
        """How many arms there are, for a family that numbers them; else None."""
        return num_arms_of(self.centre)

    def online(self, batch_shape: Sequence[int]) -> "OnlineRunning":
        return OnlineRunning(self, batch_shape)


class OnlineRunning(DrawsFunctions):
    """Statistics of the rows of each task and arm, draws of the prior, and the evidence of the rows under each draw.

    Each arm of a task has its own draws.
    """

    def __init__(self, prior: Running, batch_shape: Sequence[int]) -> None:
        past = statistics_from(prior.past)
        assert past is not None
        self.batch_shape = torch.Size(batch_shape)
        self._how, self._centre = prior.how, prior.centre
        self._unknown = prior.centre.hyperparameters(past)
        tasks, arms = self.batch_shape[0], self.batch_shape[1:].numel()
        self._rows = RowStatistics(prior.centre.expand(batch_shape))
        self._draws = prior.draws.expand(arms, *prior.draws.shape).clone()
        self._start = prior.log_weights.double().expand(arms, -1).clone()
        self._evidence = torch.zeros(tasks, arms, self._start.shape[-1], dtype=torch.float64)
        num_kept = {"redraw": 0, "keep": 1, "marginal": NUM_KEPT}[prior.how]
        self._kept = torch.zeros(tasks, arms, num_kept, prior.draws.shape[-1], dtype=torch.float64)
        self._begun = torch.zeros(tasks, arms, dtype=torch.bool)
        # for draws that are renewed, and tasks that learn before they decide
        self._generator = Generator().manual_seed(0)
        self._total = torch.zeros_like(self._start)
        # the share of draws that count, below which others are drawn
        self._least = torch.full((arms,), LEAST_ESS, dtype=torch.float64)
        self._priors = self._unknown.build(self._draws)

    def begin(self, tasks: Tensor, generator: Generator) -> None:
        """These tasks decide, or learn, for the first time: what they know from others is what is known now."""
        if self._how == "redraw" or bool(self._begun[tasks].all()):
            return
        new = tasks.unique()
        fresh = ~self._begun[new][..., None, None]  # arms that came later begin later
        log_weights = self._log_weights.expand(len(new), *self._log_weights.shape)
        which = categorical(self._kept.shape[2], log_weights, generator=generator)  # (kept, new, arms)
        drawn = self._draws[torch.arange(len(self._draws)), which].movedim(0, 2)
        self._kept[new] = torch.where(fresh, drawn, self._kept[new])
        self._begun[new] = True

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._rows.require(x, y)
        self.begin(index[0], self._generator)
        self._rows.add(index, x, y)
        entry = distinct(index)
        task, arm = entry if len(entry) > 1 else (entry[0], torch.zeros_like(entry[0]))
        new = self._priors[arm].log_evidence(self._rows[entry][:, None]).double()
        self._total.index_put_((arm,), new - self._evidence[task, arm], accumulate=True)
        self._evidence[task, arm] = new
        for r in arm.unique().tolist():
            if self._share(r) < self._least[r]:
                self._renew(r)

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        index = entries(task, len(x))
        if self._how == "redraw":  # from weights that all decisions share
            which = categorical(len(x), self._log_weights, generator=generator)
            prior = self._like_batch(self._priors[torch.arange(which.shape[1]), which])
        else:
            vectors, log_weights = self._known(index)
            which = categorical(1, log_weights, generator=generator)[0]
            chosen = vectors.gather(2, which[..., None, None].expand(*which.shape, 1, vectors.shape[-1]))[:, :, 0]
            prior = self._like_batch(self._unknown.build(chosen))
        posterior = prior if self._rows.are_none else prior.condition(self._rows[index])
        return posterior.sample(1, generator=generator)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self.posterior(entries(task, len(x))).marginal(x)

    def posterior(self, index: Any = ...) -> Mixture:
        """A mixture over hyperparameters; its batch is that of `index`."""
        tasks, chosen = tasks_of(index)
        vectors, log_weights = self._known(tasks)
        prior, log_weights = self._like_batch(self._unknown.build(vectors)), self._like_batch(log_weights)
        if not self._rows.are_none:
            rows = self._rows[tasks]
            prior = prior.condition(rows[(slice(None),) * (len(prior.batch_shape) - 1) + (None,)])
        return Mixture(prior[chosen], log_weights[chosen])

    def state_dict(self) -> State:
        # arms are the second axis, as of all states; the total too, as sums in another order end in other digits
        of_arms = {name: getattr(self, f"_{name}")[None] for name in ("draws", "start", "total", "least")}
        of_tasks = {"evidence": self._evidence, "kept": self._kept, "begun": self._begun}
        whole = {"generator": self._generator.get_state()}
        return {"rows": self._rows.state_dict(), **of_arms, **of_tasks, "whole": whole}

    def load_state_dict(self, state: State) -> None:
        self._rows.load_state_dict(state["rows"])
        self._draws, self._start, self._total, self._least = (
            state[name][0].clone() for name in ("draws", "start", "total", "least")
        )
        self._evidence, self._kept = state["evidence"].clone(), state["kept"].clone()
        self._begun = state["begun"].clone()
        self._generator.set_state(state["whole"]["generator"])
        self._priors = self._unknown.build(self._draws)

    @property
    def _log_weights(self) -> Tensor:
        """Of the draws, given all that every task has shown, `(arms, draws)`."""
        return (self._start + self._total).log_softmax(-1)

    def _share(self, arm: int) -> float:
        """How many of the draws count, as a share of them all."""
        return float(1.0 / (2.0 * self._log_weights[arm]).exp().sum()) / self._start.shape[1]

    def _known(self, index: Any) -> tuple[Tensor, Tensor]:
        """Hyperparameters of some tasks `(n, arms, draws, h)`, and their log weights given what the tasks know."""
        num = len(self._begun[index])
        if self._how == "redraw":
            return self._draws.expand(num, *self._draws.shape), self._log_weights.expand(num, *self._start.shape)
        kept = self._kept[index]
        fresh = ~self._begun[index]
        if bool(fresh.any()):  # a task that has not begun knows what all know
            which = categorical(kept.shape[2], self._log_weights, generator=Generator().manual_seed(0))
            now = self._draws[torch.arange(len(self._draws)), which].movedim(0, 1)
            kept = torch.where(fresh[..., None, None], now, kept)
        log_weights = torch.zeros(kept.shape[:-1], dtype=torch.float64)
        if self._how == "marginal" and not self._rows.are_none:
            prior = self._like_batch(self._unknown.build(kept))
            rows = self._rows[index][(slice(None),) * (len(prior.batch_shape) - 1) + (None,)]
            log_weights = prior.log_evidence(rows).double().reshape(log_weights.shape)
        return kept, log_weights.log_softmax(-1)

    def _like_batch(self, value: Any) -> Any:
        """Without the axis of arms, which here is always there, where tasks have no posterior for each."""
        return value if len(self.batch_shape) > 1 else value[:, 0]

    def _renew(self, arm: int) -> None:
        """Draw hyperparameters afresh, given past tasks and all that running tasks have shown."""
        index = (slice(None), arm) if len(self.batch_shape) > 1 else slice(None)
        rows = self._rows[index]
        shown = rows[_has_rows(rows.count)]

        def log_density(vector: Tensor) -> Tensor:
            running = self._unknown.build(vector[..., None, :]).log_evidence(shown).double()
            return self._unknown.log_density(vector) + running.sum(-1)

        mean = (self._log_weights[arm].exp()[:, None] * self._draws[arm]).sum(0)
        num_draws = self._draws.shape[1]
        draws, log_weights = weighted_draws(self._unknown, log_density, mean, num_draws, self._generator)
        self._draws[arm] = draws
        self._evidence[:, arm] = self._unknown.build(draws).log_evidence(rows[:, None]).double()
        # what running tasks have shown is kept apart, so that their next rows can replace it
        self._total[arm] = self._evidence[:, arm].sum(0)
        self._start[arm] = log_weights - self._total[arm]
        self._priors = self._unknown.build(self._draws)
        # where no better draws were found, none are looked for at every row
        self._least[arm] = min(LEAST_ESS, 0.5 * self._share(arm))


def _has_rows(count: Tensor) -> Tensor:
    """Which tasks have rows; `(tasks,)`, also where statistics are of each arm."""
    return count > 0 if count.ndim == 1 else (count > 0).flatten(1).any(-1)
