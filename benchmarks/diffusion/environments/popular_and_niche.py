"""Popular and niche arms, in groups of five that are liked together.

The first half of the groups is popular: a task likes each of them well, more or less. The others are niches, which
most tasks care little for; but each task has one to three niches that it likes best of all.

Source: Hsieh et al., Thompson sampling with diffusion generative prior (2023), for the setting; the numbers are ours.
"""

import torch
from torch import Generator, Tensor

from bayesmeta.random import rand, randint, randn

__all__ = ["GROUP", "NOISE_SD", "popular_and_niche"]

GROUP, NOISE_SD, MOST_LIKED = 5, 0.1, 3
POPULAR, NICHE, LIKED = 0.6, 0.2, 0.9  # levels of groups
BETWEEN_TASKS, WITHIN = 0.08, 0.04  # standard deviations of groups, and of arms within a group


def popular_and_niche(num_tasks: int, num_arms: int, generator: Generator) -> Tensor:
    """Mean rewards `(tasks, arms)`; arms are a multiple of ten."""
    groups = num_arms // GROUP
    popular = groups // 2
    like = torch.zeros(0, dtype=torch.float64)
    level = torch.full((num_tasks, groups), NICHE, dtype=torch.float64)
    level[:, :popular] = POPULAR
    order = rand((num_tasks, groups - popular), like=like, generator=generator).argsort(-1).argsort(-1)
    num_liked = 1 + randint(min(MOST_LIKED, groups - popular), (num_tasks, 1), generator=generator)
    level[:, popular:] = level[:, popular:].where(order >= num_liked, LIKED)
    level = level + BETWEEN_TASKS * randn(level.shape, like=like, generator=generator)
    each = level.repeat_interleave(GROUP, -1)
    return each + WITHIN * randn(each.shape, like=like, generator=generator)
