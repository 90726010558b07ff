"""Popular and niche arms, in groups of five that are liked together.

The first half of the groups is popular: a task likes each of them well, more or less. The others are niches, which
most tasks care little for; but each task has one to three niches that it likes best of all.

Source: Hsieh et al., Thompson sampling with diffusion generative prior (2023), for the setting; the numbers are ours.
"""

import itertools
import math

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Mixture
from bayesmeta.random import rand, randint, randn

__all__ = ["GROUP", "NOISE_SD", "popular_and_niche", "truth"]

GROUP, NOISE_SD, MOST_LIKED = 5, 0.1, 3
POPULAR, NICHE, LIKED = 0.6, 0.2, 0.9  # levels of groups
MOST_KINDS = 200  # sets of liked niches that a truth has
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


def truth(num_arms: int) -> Mixture | None:
    """The distribution of mean rewards itself: a Gaussian for each set of liked niches; None where these are many."""
    groups = num_arms // GROUP
    niches, popular = groups - groups // 2, groups // 2
    numbers = range(1, min(MOST_LIKED, niches) + 1)
    if sum(math.comb(niches, num) for num in numbers) > MOST_KINDS:
        return None
    member = torch.eye(groups).double().repeat_interleave(GROUP, 0)
    root = torch.linalg.cholesky(BETWEEN_TASKS**2 * member @ member.mT + WITHIN**2 * torch.eye(num_arms).double())
    levels, shares = [], []
    for num in numbers:
        for liked in itertools.combinations(range(popular, groups), num):
            level = torch.tensor([POPULAR] * popular + [NICHE] * niches).double()
            level[list(liked)] = LIKED
            levels.append(member @ level)
            shares.append(1.0 / (len(numbers) * math.comb(niches, num)))
    kinds = len(shares)
    noise_var = torch.full((kinds,), NOISE_SD**2).double()
    each = CorrelatedArms(torch.stack(levels), root.expand(kinds, -1, -1), noise_var)
    return Mixture(each, torch.tensor(shares).double().log())
