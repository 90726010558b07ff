"""What completes images without a network: each learns from past images, and says how probable ink is at each pixel."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import minimize
from torch import Generator, Tensor

from bayesmeta import GaussianProcess
from benchmarks.neural_processes.sections.image_data import Asked, Images, ImageStream, asked_about

__all__ = ["CalibratedProcess", "Frequencies", "SmoothedImages"]

SMOOTHING = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # shares that are tried
NUM_TUNING = 300  # past images of groups that are left out while a share, or a slope, is chosen
NUM_FIT, FIT_ROWS = 64, 60  # past images that a process learns from, and pixels of each


@dataclass(frozen=True)
class Frequencies:
    """How often each pixel had ink `(pixels,)`, whatever is known."""

    ink: Tensor

    @classmethod
    def learned(cls, past: Images) -> "Frequencies":
        return cls((past.ink.sum(0) + 1.0) / (len(past.ink) + 2.0))

    def log_prob(self, images: Asked) -> Tensor:
        return images.log_prob(self.ink.expand_as(images.ink))


@dataclass(frozen=True)
class SmoothedImages:
    """Exact Bayes under a mixture: an image is a past one, any as probable, with pixels redrawn by their frequency.

    Args:
        probability: of ink, by past image `(past, pixels)`.
    """

    probability: Tensor

    @classmethod
    def learned(cls, past: Images, num_known: int, generator: Generator) -> "SmoothedImages":
        """With the share of redrawn pixels that is best for images of groups that are left out."""
        rest, out = past.split(generator)
        tuning = asked_about(out, NUM_TUNING, num_known, generator)
        scores = [float(cls.of(rest, share).log_prob(tuning).mean()) for share in SMOOTHING]
        return cls.of(past, SMOOTHING[scores.index(max(scores))])

    @classmethod
    def of(cls, past: Images, share: float) -> "SmoothedImages":
        return cls(share * Frequencies.learned(past).ink + (1.0 - share) * past.ink)

    def log_prob(self, images: Asked) -> Tensor:
        known = images.is_known
        has, lacks = self.probability.log(), (-self.probability).log1p()
        weight = ((known * images.ink) @ has.mT + (known * (1.0 - images.ink)) @ lacks.mT).softmax(-1)
        return images.log_prob(weight @ self.probability)


@dataclass(frozen=True)
class CalibratedProcess:
    """A Gaussian process of zeros and ones, whose mean m says that ink has the log odds intercept + slope m."""

    process: Any
    intercept: float
    slope: float

    @classmethod
    def learned(cls, past: Images, num_known: int, generator: Generator) -> "CalibratedProcess":
        """The process from some past images, and the log odds from images of groups that it did not learn from."""
        rest, out = past.split(generator)
        tasks = ImageStream(rest).draw(NUM_FIT, FIT_ROWS, generator=generator)
        process = GaussianProcess.initial(tasks).fit(tasks, generator=generator)
        tuning = asked_about(out, NUM_TUNING, num_known, generator)
        mean, y = _means(process, tuning), tuning.asked.y

        def loss(numbers: Any) -> float:
            return -float(_log_prob(mean, y, *numbers).mean())

        best = minimize(loss, [-2.0, 4.0], method="Nelder-Mead").x
        return cls(process, float(best[0]), float(best[1]))

    def log_prob(self, images: Asked) -> Tensor:
        return _log_prob(_means(self.process, images), images.asked.y, self.intercept, self.slope)


@torch.no_grad()
def _means(process: Any, images: Asked) -> Tensor:
    mean: Tensor = process.condition(images.known).predict(images.asked.x).mean
    return mean


def _log_prob(mean: Tensor, y: Tensor, intercept: float, slope: float) -> Tensor:
    return torch.nn.functional.logsigmoid((2.0 * y - 1.0) * (intercept + slope * mean))
