"""What a plain Gaussian process, which knows no past, makes of the rows of one study."""

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.gp.process import GaussianProcess
from bo.single_study.mode import find_mode, matern52_and_slope

__all__ = ["plain_gp", "some_rows"]

MAX_FITTED = 64  # rows that hyperparameters are fitted to: more change them little and cost the cube


def plain_gp(x: Tensor, better: Tensor, *, max_rows: int) -> GaussianProcess:
    """The posterior of the standardised objective after rows, which it holds.

    Args:
        x: rows `(n, d)` of the unit cube.
        better: their objectives, more being better.
        max_rows: of more rows, the best and a share of the rest are kept.
    """
    kept = some_rows(better, max_rows)
    x, better = x[kept], better[kept]
    spread = better.std() if len(better) > 1 else torch.zeros(())
    y = (better - better.mean()) / (spread if spread > 0 else 1.0)
    few = some_rows(y, MAX_FITTED)
    found = find_mode(x[few].numpy(), y[few].numpy(), matern52_and_slope)
    prior = GaussianProcess(
        torch.from_numpy(found.lengthscale), y.new_ones(()), y.new_tensor(found.noise_var), y.new_tensor(found.constant)
    )
    return prior.condition(Data.of(x, y))


def some_rows(better: Tensor, most: int) -> Tensor:
    """Indices of at most `most` rows, in order: the best half of them, and the rest evenly over all others."""
    n = len(better)
    if n <= most:
        return torch.arange(n)
    order = better.argsort(descending=True, stable=True)
    best, others = order[: most // 2], order[most // 2 :].sort().values
    spread = torch.linspace(0, len(others) - 1, most - len(best)).round().long()
    return torch.cat([best, others[spread]]).sort().values
