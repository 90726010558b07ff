"""The configurations that a sampler would try first, all at once, as workers that start together would.

They come from the zero-shot portfolio of `bo.acquisition.schedule`.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bo.priors.tuning_prior import TuningPrior
from bo.samplers.history import History
from bo.samplers.meta import MetaSampler
from bo.samplers.request import Request
from bo.space.study_space import View

__all__ = ["first_tries"]


def first_tries(prior: TuningPrior, num: int) -> Float[Tensor, "num d"]:
    """Points of the space of `prior`, each chosen while those before it run."""
    space, sampler = prior.space, MetaSampler(prior, seed=0)
    view = View(space, space, torch.full((len(space.names),), torch.nan, dtype=torch.float64))
    history = History(space, maximize=prior.direction == "maximize")
    evaluated, y = history.evaluated()
    chances = sampler._chances(history, view)
    running, points = evaluated, []
    turns: list[str] = []
    for number in range(num):
        request = Request(
            view,
            evaluated,
            y,
            unevaluated=running,
            running=running,
            guessed=running[:0],
            maximize=history.maximize,
            generator=Generator().manual_seed(number),
            turns=turns,
            chances=chances,
        )
        point, turn = sampler._propose(request)
        points.append(point)
        turns.append(turn)
        running = torch.cat([running, space.decode(point[None])])
    return torch.stack(points)
