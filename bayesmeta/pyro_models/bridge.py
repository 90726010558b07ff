r"""Evidence of posteriors from their own draws and draws of a normalised density near them.

With $p$ unnormalised and $q$ normalised, the evidence $r$ is where the ratio of means
$E_q[p / (s_1 p + s_2 r q)] / E_p[q / (s_1 p + s_2 r q)]$ reproduces it.

Source: Meng and Wong, Simulating ratios of normalizing constants via a simple identity (1996); Frühwirth-Schnatter,
Estimating marginal likelihoods for mixture and Markov switching models using bridge sampling techniques (2004), for the
error.
"""

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.diagnostics import effective_size
from bayesmeta.mcmc.proposals.modes import uphill_factor
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.mcmc.targets import Targets, evaluate

__all__ = ["bridge_evidence"]

STEPS = 100
SETTLED = 1e-10


@torch.no_grad()
def bridge_evidence(targets: Targets, position: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Log evidence `(T,)` and its standard error, from draws `(chains, draws, T, d)`.

    The density near is fitted to the first half of each chain, and the second half is used.
    """
    half = position.shape[1] // 2
    proposal = _fitted(position[:, :half].flatten(0, 1))
    kept = position[:, half:]
    drawn, log_q2 = proposal.draw(kept.shape[0] * kept.shape[1], generator=generator)
    log_p2, flat = evaluate(targets, drawn), kept.flatten(0, 1)
    log_p1, log_q1 = evaluate(targets, flat), proposal.log_prob(flat)
    size1 = effective_size(kept, kind="mean").amin(-1).clamp(min=2.0)
    share = size1 / (size1 + len(drawn))
    a, b = share.log(), (1.0 - share).log()
    ratio = (log_p2 - log_q2).logsumexp(0)
    for _ in range(STEPS):
        top = _bridge(log_p2, log_q2, ratio, a, b, log_p2)
        bottom = _bridge(log_p1, log_q1, ratio, a, b, log_q1)
        new = top.logsumexp(0) - bottom.logsumexp(0) + torch.log(torch.tensor(len(flat) / len(drawn)))
        moved = (new - ratio).abs().nan_to_num(nan=0.0).max()
        ratio = new
        if moved < SETTLED:
            break
    top = _bridge(log_p2, log_q2, ratio, a, b, log_p2)
    bottom = _bridge(log_p1, log_q1, ratio, a, b, log_q1)
    return ratio, (_spread(top) / len(drawn) + _spread(bottom) / size1).sqrt()


def _bridge(log_p: Tensor, log_q: Tensor, ratio: Tensor, a: Tensor, b: Tensor, log_top: Tensor) -> Tensor:
    return log_top - torch.logaddexp(a + log_p, b + ratio + log_q)


def _spread(log_values: Tensor) -> Tensor:
    """Variance over squared mean."""
    values = (log_values - log_values.amax(0)).exp()
    return values.var(0) / values.mean(0).square()


def _fitted(draws: Tensor) -> StudentMixture:
    """A Student t with the moments of draws `(n, T, d)`."""
    loc = draws.mean(0)
    centred = (draws - loc).movedim(0, -1)
    root, _ = uphill_factor(centred @ centred.mT / len(draws))
    return StudentMixture(loc.new_zeros(len(loc), 1), loc[:, None], root[:, None])
