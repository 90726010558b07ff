"""Chains of a chunk of tasks, what they say of themselves, and whether they are to be trusted."""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = ["Chains", "Checks", "batch_means_size", "checked", "weighted_evidence"]

BY_CHANCE = 4.0  # times what R-hat squared is above one on average: one task in ten thousand is
BATCHES = 25  # of a chain, whose means say how much its draws repeat each other


@dataclass(frozen=True)
class Checks:
    """What draws of a task must pass to be kept.

    Args:
        pareto_k: most k of the weights of a proposal.
        rhat: most split R-hat of any coordinate; few effective draws are allowed what chance makes of them.
        ess: least effective draws of any coordinate; by default a twentieth of the draws, and at most 400.
    """

    pareto_k: float = 0.7
    rhat: float = 1.01
    ess: float | None = None

    def most_rhat(self, num_chains: int, size: Tensor) -> Tensor:
        """By effective draws: means of m half chains that agree make R-hat squared 1 + m / size, on average."""
        return (1.0 + BY_CHANCE * 2.0 * num_chains / size).sqrt().clamp(min=self.rhat)

    def least_ess(self, num_chains: int, num_draws: int) -> float:
        return min(400.0, num_chains * num_draws / 20.0) if self.ess is None else self.ess


@dataclass(frozen=True)
class Chains:
    """Chains of T tasks, tasks first and draws last, as they lie in memory.

    Args:
        position: `(T, d, chains, draws)`.
        log_density: `(T, chains, draws)`.
        log_proposal: log density of the proposal at each draw, NaN where there is none.
        acceptance_rate: of the step to each draw, float32.
        is_accepted: whether that step was taken.
        pareto_k: of the weights of the proposal `(T,)`, NaN where there is none.
        log_evidence: log of the normalising constant `(T,)`, NaN where there is no proposal.
        log_evidence_error: its standard error `(T,)`.
    """

    position: Tensor
    log_density: Tensor
    log_proposal: Tensor
    acceptance_rate: Tensor
    is_accepted: Tensor
    pareto_k: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor

    def __getitem__(self, index: Tensor) -> "Chains":
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def regrouped(self, num_chains: int, num_draws: int) -> "Chains":
        """As `num_chains` of `num_draws` each: short chains one after the other."""

        def put(values: Tensor) -> Tensor:
            return values.reshape(*values.shape[:-2], num_chains, -1)[..., :num_draws]

        if self.position.shape[-2:] == (num_chains, num_draws):
            return self
        by_draw = ("position", "log_density", "log_proposal", "acceptance_rate", "is_accepted")
        return replace(self, **{name: put(getattr(self, name)) for name in by_draw})


def batch_means_size(position: Tensor, var: Tensor) -> Tensor:
    """Effective draws of each coordinate `(T, d)`, from how much means of batches vary: one pass over the draws.

    Args:
        position: `(T, d, chains, draws)`.
        var: of all draws `(T, d)`.

    Source: Flegal and Jones, Batch means and spectral variance estimators in Markov chain Monte Carlo (2010).
    """
    chains, draws = position.shape[-2:]
    length = max(1, draws // BATCHES)
    means = position[..., : draws // length * length].unflatten(-1, (-1, length)).mean(-1).flatten(-2)
    size = chains * draws * var / (length * means.var(-1))
    return size.where(var > 0, 1.0).clamp(max=chains * draws)


@torch.no_grad()
def checked(chains: Chains, checks: Checks) -> tuple[Tensor, Tensor, Tensor]:
    """Which tasks pass `(T,)`, their worst R-hat and their least effective number of draws."""
    num_chains, num_draws = chains.position.shape[-2:]
    half = num_draws // 2
    var, mean = torch.var_mean(chains.position[..., : 2 * half].unflatten(-1, (2, half)), -1)
    within, between = var.mean((-1, -2)), mean.flatten(-2).var(-1)
    ratio = ((half - 1.0) / half + between / within).sqrt()  # split R-hat
    worst = ratio.where(within > 0, torch.where(between > 0, torch.inf, 1.0)).nan_to_num(nan=torch.inf).amax(-1)
    least = batch_means_size(chains.position, within + between).amin(-1)
    passed = (worst <= checks.most_rhat(num_chains, least)) & (least >= checks.least_ess(num_chains, num_draws))
    passed &= ~(chains.pareto_k > checks.pareto_k)
    return passed & chains.log_density.isfinite().all(-1).all(-1), worst, least


def weighted_evidence(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the mean weight over draws `(n, T)`, and its standard error by the delta method."""
    n = len(log_weights)
    total = log_weights.logsumexp(0)
    share = (log_weights - total).exp()
    error = (share.square().sum(0) * n - 1.0).clamp(min=0.0).div(n).sqrt()
    return total - math.log(n), error
