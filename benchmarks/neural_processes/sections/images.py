"""Images of which some pixels are known: how probable are the others?

Omniglot's characters, 14 x 14, of alphabets that are held out; without `--data`, scikit-learn's digits, 8 x 8, of two
digits that are held out. 10, 30 or 100 pixels at random are known. The score is the log probability of the other
pixels, each alone, in nats per pixel, which is .69 below zero for a coin.

- members of neural processes, with heads of zeros and ones, which learn from random images and pixels of the rest.
- `frequencies`: how often each pixel has ink, whatever is known.
- `past_images`: exact Bayes, where an image is one of the past with some pixels redrawn.
- `gaussian_process`: `GaussianProcess` of zeros and ones, its means turned to probabilities by past images.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import AttentiveNeuralProcess, ConditionalNeuralProcess, Data, TransformerNeuralProcess
from bayesmeta.neural_processes import BernoulliHead, Schedule
from benchmarks.neural_processes.sections import image_baselines as baselines
from benchmarks.neural_processes.sections.folders import folder_of
from benchmarks.neural_processes.sections.image_data import Asked, Images, ImageStream, asked_about, digits, omniglot
from benchmarks.neural_processes.sections.scores import Rows, as_figures, as_rows, as_table
from benchmarks.pieces import Pieces
from benchmarks.report import Figure

__all__ = ["BUDGETS", "KNOWN", "MEMBERS", "ImageBudget", "images", "shown"]

KNOWN = (10, 30, 100)
NUM_AT_ONCE = 50  # images that a network is asked about together
BASELINES: dict[str, Callable[[Images, int, Generator], Any]] = {
    "frequencies": lambda past, _num_known, _generator: baselines.Frequencies.learned(past),
    "past_images": baselines.SmoothedImages.learned,
    "gaussian_process": baselines.CalibratedProcess.learned,
}
BESIDE = "past_images"


@dataclass(frozen=True)
class ImageBudget:
    """Images that are asked about, and the share of the steps of a member."""

    num_images: int
    effort: float


BUDGETS = {"quick": ImageBudget(50, 0.02), "full": ImageBudget(500, 1.0)}


@dataclass(frozen=True)
class Member:
    """How one is made of tasks, and its steps: about 8 CPU-minutes."""

    initial: Callable[[Data], Any]
    num_steps: int


def _transformer(tasks: Data, *, knows_stationarity: bool) -> TransformerNeuralProcess:
    sizes: dict[str, Any] = {"width": 48, "num_layers": 4, "num_heads": 4, "linear_width": 8, "hidden": 96}
    return TransformerNeuralProcess.initial(tasks, head=BernoulliHead, knows_stationarity=knows_stationarity, **sizes)


def _attentive(tasks: Data) -> AttentiveNeuralProcess:
    sizes: dict[str, Any] = {"width": 64, "num_latent": 32, "num_layers": 2, "num_attending": 1, "num_heads": 4}
    return AttentiveNeuralProcess.initial(tasks, head=BernoulliHead, **sizes)


MEMBERS = {
    "transformer": Member(lambda tasks: _transformer(tasks, knows_stationarity=True), 3000),
    "transformer_anywhere": Member(lambda tasks: _transformer(tasks, knows_stationarity=False), 3000),
    "conditional": Member(lambda tasks: ConditionalNeuralProcess.initial(tasks, head=BernoulliHead), 6000),
    "attentive": Member(_attentive, 3000),
}


def images(
    pieces: Pieces, budget: Any, members: Sequence[str], _kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """`log_prob/images/<known pixels>/<method>`, or `digits` in place of `images`, and the rows of a table."""
    of_images = BUDGETS[pieces.budget]
    section = "digits" if budget.data is None else "images"
    every = digits() if budget.data is None else omniglot(folder_of("images", budget.data))
    past, new = every.split(Generator().manual_seed(0))
    parts = list(_evaluation(new, of_images.num_images))
    found = {}
    for name in BASELINES:
        say(f"{section}: {name}")
        found[name] = pieces.numbers(f"{section}/{name}", lambda name=name: _of_baseline(name, past, parts))
    for name in (name for name in MEMBERS if name in members):
        say(f"{section}: {name}")
        found[name] = pieces.numbers(
            f"{section}/{name}",
            lambda name=name: _of_prior(*_learned(section, name, past, of_images.effort, pieces), parts),
        )
    rows = as_rows(section, found, beside=BESIDE)
    return as_figures(rows, {"log_prob": "nats per pixel"}), rows


def _known(images: Images) -> list[int]:
    """Numbers of known pixels that leave some to ask about."""
    return [num for num in KNOWN if num < len(images.x)]


def _evaluation(new: Images, num: int) -> Iterator[Asked]:
    for num_known in _known(new):
        yield asked_about(new, num, num_known, Generator().manual_seed(1000 + num_known))


def _of_baseline(name: str, past: Images, parts: Sequence[Asked]) -> dict[str, Any]:
    start, answers = time.process_time(), {}
    for part in parts:
        learned = BASELINES[name](past, part.num_known, Generator().manual_seed(2))
        answers[str(part.num_known)] = learned.log_prob(part).mean(-1).tolist()
    return {"minutes": (time.process_time() - start) / 60.0, "scores": {"log_prob": answers}}


def _learned(section: str, name: str, past: Images, effort: float, pieces: Pieces) -> tuple[Any, float]:
    member, stream, most = MEMBERS[name], ImageStream(past), max(_known(past))
    num_steps = max(round(effort * member.num_steps), 1)
    num_asked = min(48, len(past.x) - most)
    tasks = stream.draw(200, most, generator=Generator().manual_seed(1)).to(torch.float32)

    def learn(checkpoint: Any) -> Any:
        schedule = Schedule(num_steps, most_known=most, num_asked=num_asked)
        generator = Generator().manual_seed(0)
        return member.initial(tasks).fit(
            stream, schedule=schedule, generator=generator, checkpoint=checkpoint, progress=False
        )

    return pieces.learned(f"prior/{section}/{name}", num_steps, learn)


def _of_prior(prior: Any, minutes: float, parts: Sequence[Asked]) -> dict[str, Any]:
    by_known = {
        str(part.num_known): torch.cat(
            [_log_prob(prior, part[slice(i, i + NUM_AT_ONCE)]) for i in range(0, len(part), NUM_AT_ONCE)]
        ).tolist()
        for part in parts
    }
    return {"minutes": minutes, "scores": {"log_prob": by_known}}


@torch.no_grad()
def _log_prob(prior: Any, part: Asked) -> Tensor:
    known, asked = part.known.to(prior.dtype), part.asked.to(prior.dtype)
    log_prob: Tensor = prior.condition(known).predict(asked.x).log_prob(asked.y).mean(-1)
    return log_prob


shown = as_table("images: nats per pixel of few known ones; gaps are behind a mixture of past images")
