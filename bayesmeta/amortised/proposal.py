r"""A proposal for the posterior of a task, which a network reads off its rows.

With $x = m + R u$, m and R R' the mean and covariance of parameters under the prior, the network says

$$ q(u \mid \text{rows}) = \sum_k \pi_k\, t_8(u;\ \mu_k, S_k), $$

and a task's proposal is that mixture for x, in float64: centres $m + R\mu_k$, factors of the scales $R S_k^{1/2}$.
Learned once, it answers for a thousand new tasks in milliseconds. `bayesmeta.mcmc.sample` corrects what it answers:

    proposal = AmortisedProposal.initial(simulate).fit(simulate)
    draws = sample(targets, learned=proposal(rows, mask), unlike=proposal.unlike(rows, mask))

Source: Papamakarios and Murray, Fast epsilon-free inference of simulation models with Bayesian conditional density
estimation (2016); Schmitt et al., Amortized Bayesian workflow (2024), for the correction and the check of summaries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.amortised.learning import ProposalSchedule, learn_from_past, learn_from_simulator
from bayesmeta.amortised.network import Components, ProposalNetwork
from bayesmeta.amortised.summaries import SummaryDistance
from bayesmeta.amortised.tasks import PastPosteriors, Simulator, Tasks, checked_rows, drawn_tasks
from bayesmeta.data.samples import random_order
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.features import centre_and_scale_with_digits
from bayesmeta.numerics.gradients import with_gradients

__all__ = ["AmortisedProposal"]

DEFAULT = ProposalSchedule()
NUM_SCALING = 4096  # simulated tasks by which rows and parameters are standardised
NUM_SUMMARIES = 16_384  # simulated tasks by which a summary is known to be far
AT_ONCE = 2**16  # rows that a network sees together
JITTER = 1e-9  # of the variance of parameters, that is added to their covariance


@dataclass(frozen=True, eq=False)
class AmortisedProposal(TensorFields):
    """A network from the rows of a task to a mixture of Student t distributions: `AmortisedProposal.initial(simulate)`.

    Args:
        inputs: how columns of rows become numbers of order one.
        loc: mean of the parameters under the prior, or over past tasks.
        scale_tril: factor of their covariance.
        network: from rows to components, in float32.
        distance: of summaries from those of the tasks that it learned from; None before it has learned.
        learned_from: how many tasks and rows it has seen; None before it has learned.
    """

    inputs: Inputs
    loc: Float[Tensor, "d"]
    scale_tril: Float[Tensor, "d d"]
    network: ProposalNetwork
    distance: SummaryDistance | None = None
    learned_from: LearnedFrom | None = None

    @classmethod
    def initial(
        cls,
        source: Simulator | PastPosteriors,
        *,
        categories: dict[int, int] | None = None,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> "AmortisedProposal":
        """A network that has learned nothing, in the units of tasks.

        Args:
            source: a function of a number of tasks and a generator, or past posteriors.
            categories: how many there are, by the column of rows that holds them as whole numbers from 0.
            generator: draws tasks and the weights; None takes the same ones each time.
            sizes: of the network, by the names of the arguments of `ProposalNetwork`, such as `num_components`.

        Raises:
            ValueError: what the simulator returns has wrong shapes or is not finite.
        """
        generator = generator or Generator().manual_seed(0)
        tasks = _tasks_of(source, NUM_SCALING, generator)
        rows = tasks.rows[tasks.mask].double()
        if not len(rows):
            raise ValueError("rows are standardised by those of tasks, and these have none")
        inputs = Inputs(*centre_and_scale_with_digits(rows), dict(categories or {}))
        params = tasks.params.double().flatten(0, 1)
        centred = params - params.mean(0)
        cov = centred.mT @ centred / len(params)
        cov = cov + torch.diag(JITTER * cov.diagonal() + torch.finfo(cov.dtype).tiny)
        sizes |= {"num_columns": inputs.num_outputs, "num_params": params.shape[-1]}
        network = ProposalNetwork.initial(generator=generator, **sizes)
        return cls(inputs, params.mean(0), torch.linalg.cholesky(cov), network).to(params.device)

    @property
    def num_params(self) -> int:
        """d."""
        return len(self.loc)

    @property
    def num_columns(self) -> int:
        """Of a row."""
        return len(self.inputs.centre)

    def __call__(self, rows: Any, mask: Any = None) -> StudentMixture:
        """Proposals for the parameters of T tasks, in float64.

        Args:
            rows: `(T, n, c)`; padding may hold anything.
            mask: which of them are real `(T, n)`; None where all are.

        Raises:
            ValueError: rows have other columns, or are not finite where the mask is true.
        """
        parts = self._by_pieces(rows, mask, lambda rows, mask: self.network.module(rows, mask))
        found = Components(*(torch.cat(part) for part in zip(*parts, strict=True)))
        return found.mixture(self.loc.double(), self.scale_tril.double())

    def unlike(self, rows: Any, mask: Any = None) -> Tensor:
        """Which tasks are unlike nearly all that it learned from `(T,)`, by the distance of their summaries.

        One in a thousand of the tasks that it expects is so, too.

        Raises:
            ValueError: it has not learned, or rows are none that it takes.
        """
        if self.distance is None:
            raise ValueError("which tasks are unlike those learned from is known after fit; this has not learned")
        return self.distance.unlike(self.summaries(rows, mask))

    def fit(
        self,
        source: Simulator | PastPosteriors,
        *,
        schedule: ProposalSchedule | None = None,
        generator: Generator | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
    ) -> "AmortisedProposal":
        """A network that has learned, starting from that of `self`.

        Args:
            source: a function of a number of tasks and a generator, or past posteriors, of which a fifth is left out
                to say when learning ends.
            schedule: how long, with how many tasks at a time.
            generator: chooses or draws tasks; None takes a fixed choice.
            checkpoint: a file from which learning goes on if it is there, to the last bit, and which it keeps up to
                date; for simulators that draw from the generator they are given alone.
            progress: show that learning goes on.

        Raises:
            ValueError: tasks have other numbers of parameters or columns than those of `initial`, or numbers that are
                not finite; a checkpoint is given with past posteriors, or is of other learning.
        """
        return _fit(self, source, schedule or DEFAULT, generator, checkpoint, progress=progress)

    def standardised(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as the network sees them, in its dtype, zero for padding, and their mask."""
        rows, mask = rows.to(self.loc.device), mask.to(self.loc.device)
        seen = self.inputs(rows.to(self.inputs.centre)).to(self.network.dtype)
        return seen * mask[..., None], mask

    def white(self, params: Tensor) -> Tensor:
        """Parameters `(..., d)` in units of the prior, in the dtype of the network."""
        centred = params.to(self.loc) - self.loc
        flat = centred.reshape(-1, self.num_params).mT
        white = torch.linalg.solve_triangular(self.scale_tril, flat, upper=False)
        return white.mT.reshape(params.shape).to(self.network.dtype)

    def summaries(self, rows: Any, mask: Any = None) -> Tensor:
        """What `distance` is of: the network's own summary, and mean and mean square of each column."""
        return torch.cat(self._by_pieces(rows, mask, self._summary))

    def _summary(self, rows: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum(-1, keepdim=True).clamp(min=1)
        plain = [rows.sum(-2) / count, rows.square().sum(-2) / count]
        return torch.cat([self.network.module.summary(rows, mask), *plain], -1).double()

    @torch.no_grad()
    def _by_pieces(self, rows: Any, mask: Any, ask: Callable[[Tensor, Tensor], Any]) -> list[Any]:
        """What is answered about some of the tasks at a time."""
        rows, mask = checked_rows(rows, mask, self.num_columns)
        each = max(1, AT_ONCE // max(1, rows.shape[1]))
        return [ask(*self.standardised(*piece)) for piece in zip(rows.split(each), mask.split(each), strict=True)]


@with_gradients
def _fit(
    proposal: AmortisedProposal,
    source: Any,
    schedule: ProposalSchedule,
    generator: Generator | None,
    checkpoint: str | Path | None,
    *,
    progress: bool,
) -> AmortisedProposal:
    generator = generator or Generator().manual_seed(0)
    if isinstance(source, PastPosteriors):
        if checkpoint is not None:
            raise ValueError("a checkpoint is of learning from a simulator; got past posteriors")
        _require_alike(proposal, source.all())
        weights = learn_from_past(proposal, source, schedule, generator, progress=progress)
        seen, rows = len(source.rows), int(source.all().mask.sum())
    else:
        _require_alike(proposal, drawn_tasks(source, 2, Generator().manual_seed(0)))
        path = None if checkpoint is None else Path(checkpoint)
        weights = learn_from_simulator(proposal, source, schedule, generator, path, progress=progress)
        seen, rows = schedule.num_steps * schedule.num_tasks, 0
    learned = proposal._replace(network=proposal.network.with_weights(weights))
    tasks = _tasks_of(source, NUM_SUMMARIES, generator)
    order = random_order(len(tasks.rows), generator).to(tasks.rows.device)
    summaries = learned.summaries(tasks.rows[order], tasks.mask[order])
    num = len(summaries) // 2
    rows = rows or round(seen * float(tasks.mask.sum()) / len(tasks.rows))
    distance = SummaryDistance.of(summaries[num:], summaries[:num])
    return learned._replace(distance=distance, learned_from=LearnedFrom(seen, rows))


def _require_alike(proposal: AmortisedProposal, tasks: Tasks) -> None:
    for what, wanted, got in (
        ("parameters a task", proposal.num_params, tasks.params.shape[-1]),
        ("columns a row", proposal.num_columns, tasks.rows.shape[-1]),
    ):
        if wanted != got:
            raise ValueError(f"this proposal is of {wanted} {what}; got tasks with {got}")


def _tasks_of(source: Any, num_tasks: int, generator: Generator) -> Tasks:
    return source.all() if isinstance(source, PastPosteriors) else drawn_tasks(source, num_tasks, generator)
