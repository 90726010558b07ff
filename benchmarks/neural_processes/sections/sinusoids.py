"""Few-shot sinusoids: y = a sin(x + phase) of a few rows.

Amplitudes are uniform on (.1, 5), phases on (0, pi), x on (-5, 5). The source has no noise; here y has some, of
standard deviation .1, so that there are densities. Of new tasks 5 and 10 rows are known. Scores are the log density of
new rows, in nats per row, and the squared error against the function without noise.

- `exact`: Bayes, with the amplitude integrated in closed form and the phase on a grid.
- members of neural processes, which learn from a stream of such tasks.
- `learned_features`: `LearnedFeatures` of 500 past tasks. Sinusoids are linear in sin x and cos x.
- `maml`, `maml_10`: MAML, with 5 and 10 gradient steps on the rows of a new task, and predictions kept within (-5, 5),
  for in one task of a thousand the steps diverge. It has no density.

Source: Finn, Abbeel and Levine, Model-agnostic meta-learning for fast adaptation of deep networks (2017), section 5.1.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.special import log_ndtr

from bayesmeta import ConditionalNeuralProcess, Data, LearnedFeatures, TransformerNeuralProcess
from bayesmeta.neural_processes import Moments, Schedule
from bayesmeta.random import rand, randn
from benchmarks.neural_processes.sections.maml import Maml
from benchmarks.neural_processes.sections.scores import Rows, as_figures, as_rows, as_table
from benchmarks.pieces import Pieces
from benchmarks.report import Figure

__all__ = ["BUDGETS", "MEMBERS", "SinusoidBudget", "SinusoidStream", "exact_prediction", "shown", "sinusoids"]

AMPLITUDES, MOST_X, NOISE = (0.1, 5.0), 5.0, 0.1
KNOWN, NUM_ASKED = (5, 10), 20
NUM_PHASES = 2000  # of the grid: a phase is known to .01 at best
LIKE = torch.zeros(0, dtype=torch.float64)
MEANINGS = {"log_prob": "nats per new row", "mse": "squared error against the function without noise"}


@dataclass(frozen=True)
class SinusoidBudget:
    """How much of it.

    Args:
        num_tasks: that are new.
        num_past: from which features learn.
        effort: share of the steps of a member and of MAML.
    """

    num_tasks: int
    num_past: int
    effort: float


BUDGETS = {"quick": SinusoidBudget(100, 50, 0.02), "full": SinusoidBudget(1000, 500, 1.0)}


@dataclass(frozen=True)
class Member:
    """How one is made of tasks, and its steps: about 5 CPU-minutes."""

    initial: Callable[[Data], Any]
    num_steps: int


MEMBERS = {
    "transformer": Member(TransformerNeuralProcess.initial, 3000),
    "transformer_anywhere": Member(
        lambda tasks: TransformerNeuralProcess.initial(tasks, knows_stationarity=False), 3000
    ),
    "conditional": Member(ConditionalNeuralProcess.initial, 8000),
}
MAML_STEPS = 30_000


@dataclass(frozen=True)
class SinusoidStream:
    """Tasks that know their function."""

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        return self.draw_with_function(num_tasks, num_rows, generator=generator)[0]

    def draw_with_function(self, num_tasks: int, num_rows: int, *, generator: Generator) -> tuple[Data, Tensor]:
        """Tasks, and their functions at the same rows `(num_tasks, num_rows)`."""
        low, high = AMPLITUDES
        amplitude = low + (high - low) * rand((num_tasks, 1), like=LIKE, generator=generator)
        phase = math.pi * rand((num_tasks, 1), like=LIKE, generator=generator)
        x = MOST_X * (2.0 * rand((num_tasks, num_rows), like=LIKE, generator=generator) - 1.0)
        function = amplitude * (x + phase).sin()
        return Data.of(x[..., None], function + NOISE * randn(x.shape, like=LIKE, generator=generator)), function

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        tasks, function = self.draw_with_function(num_tasks, num_known + num_asked, generator=generator)
        asked = function[:, num_known:, None].expand(-1, -1, num_known + 1)
        return tasks, Moments(asked, torch.full_like(asked, NOISE**2))


STREAM = SinusoidStream()


def sinusoids(
    pieces: Pieces, _budget: Any, members: Sequence[str], _kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """`<score>/sinusoids/<known rows>/<method>`, and the rows of a table."""
    budget = BUDGETS[pieces.budget]
    parts = list(_evaluation(budget.num_tasks))
    methods: dict[str, Callable[[], dict[str, Any]]] = {
        "exact": lambda: _measured(_exact, parts, None),
        "learned_features": lambda: _of_prior(*_features(budget, pieces), parts),
    }
    for name in (name for name in MEMBERS if name in members):
        methods[name] = lambda name=name: _of_prior(*_member(name, budget, pieces), parts)
    found = {}
    for name, measured in methods.items():
        say(f"sinusoids: {name}")
        found[name] = pieces.numbers(f"sinusoids/{name}", measured)
    say("sinusoids: maml")
    found |= pieces.numbers("sinusoids/maml", lambda: _maml(budget, parts))
    rows = as_rows("sinusoids", found, beside="exact")
    return as_figures(rows, MEANINGS), rows


def _evaluation(num_tasks: int) -> list[tuple[Data, Data, Tensor]]:
    """Known rows, new rows and the function at these, by the number of known rows."""
    parts = []
    for num in KNOWN:
        generator = Generator().manual_seed(1000 + num)  # learning has 0, 1 and 2
        tasks, function = STREAM.draw_with_function(num_tasks, num + NUM_ASKED, generator=generator)
        parts.append((tasks.rows(slice(0, num)), tasks.rows(slice(num, None)), function[:, num:]))
    return parts


def _measured(answer: Callable[[Data, Data], tuple[Tensor, Tensor | None]], parts: Any, minutes: Any) -> dict[str, Any]:
    """Scores of means, and log densities where there are any, both `(tasks, rows)`."""
    scores: dict[str, dict[str, list[float]]] = {}
    for num, (known, asked, function) in zip(KNOWN, parts, strict=True):
        mean, log_prob = answer(known, asked)
        by_task = {"log_prob": log_prob, "mse": (mean - function).square()}
        for score, values in by_task.items():
            if values is not None:
                scores.setdefault(score, {})[str(num)] = values.mean(-1).tolist()
    return {"minutes": minutes, "scores": scores}


@torch.no_grad()
def _of_prior(prior: Any, minutes: float, parts: Any) -> dict[str, Any]:
    def answer(known: Data, asked: Data) -> tuple[Tensor, Tensor]:
        prediction = prior.condition(known).predict(asked.x)
        return prediction.mean, prediction.log_prob(asked.y)

    return _measured(answer, parts, minutes)


def _member(name: str, budget: SinusoidBudget, pieces: Pieces) -> tuple[Any, float]:
    num_steps = max(round(budget.effort * MEMBERS[name].num_steps), 1)
    schedule = Schedule(num_steps, most_known=max(KNOWN))
    tasks = STREAM.draw(500, 64, generator=Generator().manual_seed(1))

    def learn(checkpoint: Any) -> Any:
        generator = Generator().manual_seed(0)
        start = MEMBERS[name].initial(tasks)
        return start.fit(STREAM, schedule=schedule, generator=generator, checkpoint=checkpoint, progress=False)

    return pieces.learned(f"prior/sinusoids/{name}", num_steps, learn)


def _features(budget: SinusoidBudget, pieces: Pieces) -> tuple[Any, float]:
    past = STREAM.draw(budget.num_past, 30, generator=Generator().manual_seed(2))
    return pieces.learned(
        "prior/sinusoids/learned_features",
        1,
        lambda _: LearnedFeatures.initial(past).fit(past, generator=Generator().manual_seed(0), progress=False),
    )


def _maml(budget: SinusoidBudget, parts: Any) -> dict[str, Any]:
    start = time.process_time()
    learned = Maml.initial(Generator().manual_seed(0)).fit(
        STREAM, max(round(budget.effort * MAML_STEPS), 1), num_known=max(KNOWN), generator=Generator().manual_seed(0)
    )
    minutes = (time.process_time() - start) / 60.0

    def by(steps: int) -> dict[str, Any]:
        def answer(known: Data, asked: Data) -> tuple[Tensor, None]:
            most = AMPLITUDES[1]  # steps on a few rows far out can diverge
            return learned.predict(known, asked.x, steps=steps).nan_to_num(0.0).clamp(-most, most), None

        return _measured(answer, parts, minutes)

    return {"maml": by(5), "maml_10": by(10)}


def _exact(known: Data, asked: Data) -> tuple[Tensor, Tensor]:
    answers = [exact_prediction(known[[i]], asked[[i]]) for i in range(len(known))]
    return torch.cat([mean for mean, _ in answers]), torch.cat([log_prob for _, log_prob in answers])


def exact_prediction(known: Data, asked: Data) -> tuple[Tensor, Tensor]:
    """Mean and log density of new rows, each alone, `(tasks, rows)`, under the distribution of the stream.

    Given the phase, the amplitude has a truncated normal distribution. A new row adds to its statistics, and its
    density is what it adds to the evidence.
    """
    phase = (torch.arange(NUM_PHASES, dtype=torch.float64) + 0.5) * (math.pi / NUM_PHASES)
    sines, y = (known.x + phase).sin(), known.y[..., None]  # (tasks, rows, phases)
    ss, ys, yy = (part.sum(-2)[..., None, :] for part in (sines.square(), y * sines, y.square().expand_as(sines)))
    before, amplitude = _over_amplitudes(ss, ys, yy, known.mask.shape[-1])
    new, y_new = (asked.x + phase).sin(), asked.y[..., None]
    after, _ = _over_amplitudes(ss + new.square(), ys + y_new * new, yy + y_new.square(), known.mask.shape[-1] + 1)
    mean = (before.softmax(-1) * amplitude * new).sum(-1)
    return mean, after.logsumexp(-1) - before.logsumexp(-1)


def _over_amplitudes(ss: Tensor, ys: Tensor, yy: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Log evidence given the phase, and the mean of the amplitude; of sums over rows of squares and products."""
    (low, high), var = AMPLITUDES, NOISE**2
    loc, sd = ys / ss, (var / ss).sqrt()
    start, end = (low - loc) / sd, (high - loc) / sd
    # in the lower tail, where differences of tails keep their digits
    start, end, sign = start.where(start < 0, -end), end.where(start < 0, -start), torch.where(start < 0, 1.0, -1.0)
    larger = log_ndtr(end)
    log_mass = larger + torch.log(-torch.expm1(log_ndtr(start) - larger))
    shares = [(-0.5 * z.square() - 0.5 * math.log(2.0 * math.pi) - log_mass).exp() for z in (start, end)]
    mean = (loc + sign * sd * (shares[0] - shares[1])).nan_to_num(low).clamp(low, high)
    misfit = -0.5 * (yy - ys.square() / ss) / var - 0.5 * num_rows * math.log(2.0 * math.pi * var)
    return misfit + 0.5 * torch.log(2.0 * math.pi * sd.square()) + log_mass - math.log(high - low), mean


shown = as_table("sinusoids: nats per row and squared error of few known rows; gaps are behind exact Bayes")
