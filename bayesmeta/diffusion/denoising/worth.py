"""What held-out tasks say that a diffusion prior is worth: which of its levels, or none beside the Gaussian prior."""

import torch
from scipy.stats import t as student_t
from torch import Tensor

__all__ = ["lowest_level"]

LEAST_TASKS = 4  # held-out ones: fewer judge nothing
CHANCE = 0.01  # of calling the diffusion prior better where it is as good


def lowest_level(each: Tensor, gaussian: Tensor) -> int | None:
    """The highest level below which held-out tasks are hardly more probable: within an error of the best one's.

    None where even the best one gains no more over the Gaussian prior than chance would, by Student's t test, and where
    there are too few tasks to tell.

    Args:
        each: log evidence of held-out tasks without the levels below each one `(levels, tasks)`.
        gaussian: under the Gaussian prior `(tasks,)`.
    """
    mean = each.mean(-1).nan_to_num(nan=-torch.inf)
    best = each[mean.argmax()]
    gain, num = best - gaussian, len(gaussian)
    if num < LEAST_TASKS or not bool(gain.mean() > float(student_t.ppf(1.0 - CHANCE, num - 1)) * _error(gain)):
        return None
    loss = best - each
    return int((loss.mean(-1) <= _error(loss)).nonzero().max())


def _error(values: Tensor) -> Tensor:
    """Of a mean over the last axis, of at least two numbers."""
    return values.std(-1) / values.shape[-1] ** 0.5
