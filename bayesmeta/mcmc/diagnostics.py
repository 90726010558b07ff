r"""How good draws are, for many quantities at once: effective sample sizes, R-hat, and Pareto's k of weights.

arviz has the same numbers, one quantity at a time; these are for ten thousand tasks, and tests hold them to arviz.

Source: Vehtari et al., Rank-normalization, folding, and localization: an improved R-hat (2021); Geyer, Practical Markov
chain Monte Carlo (1992); Vehtari et al., Pareto smoothed importance sampling (2024); Zhang and Stephens, A new and
efficient estimation method for the generalized Pareto distribution (2009).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["effective_size", "pareto_k", "rhat"]

AT_ONCE = 2**22  # numbers whose spectra are held together
LEAST_TAIL = 5  # weights of which a tail is fitted


@torch.no_grad()
def effective_size(draws: Tensor, *, kind: str = "bulk") -> Tensor:
    """Effective sample size of `(chains, draws, *quantities)`, shape `(*quantities,)`.

    Args:
        kind: "mean" of the draws as they are, "bulk" of their normal scores, "tail" the lesser of the sizes for the 5%
            and the 95% quantile.
    """
    return _by_pieces({"mean": _mean_size, "bulk": _bulk_size, "tail": _tail_size}[kind], draws)


@torch.no_grad()
def rhat(draws: Tensor, *, kind: str = "rank") -> Tensor:
    """R-hat of `(chains, draws, *quantities)`, each chain in two halves, shape `(*quantities,)`.

    Args:
        kind: "rank" for the larger of that of normal scores and that of the folded ones; "split" of draws as they are.
    """
    return _by_pieces({"rank": _rank_rhat, "split": lambda x: _rhat(_halves(x))}[kind], draws)


def _by_pieces(function: Callable[[Tensor], Tensor], draws: Tensor) -> Tensor:
    """`function` of `(chains, draws, q)`, shape `(q,)`, for some quantities at a time."""
    flat = draws.flatten(2) if draws.ndim > 2 else draws[..., None]
    each = max(1, AT_ONCE // max(1, flat.shape[0] * flat.shape[1]))
    return torch.cat([function(part) for part in flat.split(each, -1)]).reshape(draws.shape[2:])


def _halves(draws: Tensor) -> Tensor:
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _mean_size(draws: Tensor) -> Tensor:
    return _effective(_halves(draws))


def _bulk_size(draws: Tensor) -> Tensor:
    return _effective(_normal_scores(_halves(draws)))


def _tail_size(draws: Tensor) -> Tensor:
    ordered = draws.flatten(0, 1).sort(0).values
    # no draw lies between an interpolated quantile, which is what arviz takes, and the draw below it
    places = [math.floor((len(ordered) - 1) * q + 1e-9) for q in (0.05, 0.95)]
    sizes = [_effective(_halves((draws <= ordered[place]).to(draws))) for place in places]
    return torch.minimum(*sizes)


def _rank_rhat(draws: Tensor) -> Tensor:
    halves = _halves(draws)
    ordered = halves.flatten(0, 1).sort(0).values
    n = len(ordered)
    median = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores((halves - median).abs())))


def _normal_scores(draws: Tensor) -> Tensor:
    """Normal quantiles of the ranks among all draws of a quantity, ties having their mean rank: `(m, n, q)`."""
    flat = draws.flatten(0, 1).mT.contiguous()
    ordered, order = flat.sort(-1)
    n = flat.shape[-1]
    place = torch.arange(1.0, n + 1.0, dtype=flat.dtype, device=flat.device).expand_as(flat)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(new, place, 0.0).cummax(-1).values
    new = torch.cat([new[:, 1:], torch.ones_like(new[:, :1])], -1)  # whether the next one differs
    last = torch.where(new, place, n + 1.0).flip(-1).cummin(-1).values.flip(-1)
    ranks = torch.empty_like(flat).scatter_(-1, order, 0.5 * (first + last))
    return torch.special.ndtri((ranks - 0.375) / (n + 0.25)).mT.reshape(draws.shape)


def _effective(draws: Tensor) -> Tensor:
    """Of chains `(m, n, q)`: Geyer's initial monotone sequence of pairs of autocorrelations."""
    m, n, _ = draws.shape
    x = (draws - draws.mean(1, keepdim=True)).movedim(1, -1)
    spectrum = torch.fft.rfft(x, n=1 << (2 * n - 1).bit_length())
    autocovariance = torch.fft.irfft(spectrum.real.square() + spectrum.imag.square())[..., :n].mean(0) / n  # (q, n)
    within = autocovariance[..., :1] * n / (n - 1.0)
    total = within * (n - 1.0) / n
    if m > 1:
        total = total + draws.mean(1).var(0)[:, None]
    rho = 1.0 - (within - autocovariance) / total
    rho[:, 0] = 1.0
    even, odd = rho[:, 0::2], rho[:, 1::2]
    count = max(1, (n - 3) // 2)  # pairs; the lags after have too few products
    pairs = even[:, :count] + odd[:, :count]
    positive = (pairs > 0).cummin(-1).values
    # of the pair that ends the sequence the even lag counts, where it is positive
    end = even.gather(-1, positive.sum(-1, keepdim=True).clamp(max=even.shape[-1] - 1))[:, 0].clamp(min=0.0)
    time = 2.0 * (pairs.cummin(-1).values * positive).sum(-1) - 1.0 + end
    size = m * n / time.clamp(min=1.0 / math.log10(m * n))
    flat = draws.flatten(0, 1)
    return size.where(flat.amax(0) > flat.amin(0), float(m * n)).where(flat.isfinite().all(0), torch.nan)


def _rhat(draws: Tensor) -> Tensor:
    n = draws.shape[1]
    within, between = draws.var(1).mean(0), draws.mean(1).var(0)
    ratio = ((n - 1.0) / n + between / within).sqrt()
    return ratio.where(within > 0, torch.where(between > 0, torch.inf, 1.0))


@torch.no_grad()
def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape k of a generalised Pareto tail of the weights `(draws, *quantities)`: below .7 means are reliable.

    The tail is the largest fifth, or 3 sqrt(draws) of them. It is infinite where it has a weight of zero.
    """
    n = len(log_weights)
    size = math.ceil(min(0.2 * n, 3.0 * math.sqrt(n)))
    if size < LEAST_TAIL:
        return log_weights.new_full(log_weights.shape[1:], torch.inf)
    flat = log_weights.reshape(n, -1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    top = flat.topk(size + 1, dim=0).values.flip(0)
    relative = (top - top[-1]).clamp(min=math.log(torch.finfo(top.dtype).tiny)).exp()
    excess = relative[1:] - relative[0]  # ascending
    found = _pareto_shape(excess)
    prior = 10.0  # draws that a k of one half counts for
    found = (size * found + prior * 0.5) / (size + prior)
    found = found.where(excess[-1] > 0, torch.where(top[-1] > top[0], torch.inf, -torch.inf))
    enough = (flat > -torch.inf).sum(0) > size
    return found.where(enough, torch.inf).reshape(log_weights.shape[1:])


def _pareto_shape(excess: Tensor) -> Tensor:
    """k of excesses `(n, q)` in ascending order, by the mean over a grid of profile likelihoods."""
    n = len(excess)
    grid = 30 + int(math.sqrt(n))
    at = torch.arange(1.0, grid + 1.0, dtype=excess.dtype, device=excess.device)
    quartile = excess[int(n / 4 + 0.5) - 1].clamp(min=torch.finfo(excess.dtype).tiny)
    b = (1.0 - (grid / (at - 0.5)).sqrt())[:, None] / (3.0 * quartile) + 1.0 / excess[-1]
    k = torch.stack([torch.log1p(-each * excess).mean(0) for each in b])
    likelihood = n * ((-(b / k)).log() - k - 1.0)
    weights = likelihood.nan_to_num(nan=-torch.inf).softmax(0)
    weights = weights.where(weights >= 10.0 * torch.finfo(excess.dtype).eps, 0.0)
    mean_b = (b * weights / weights.sum(0)).sum(0)
    return torch.log1p(-mean_b * excess).mean(0)
