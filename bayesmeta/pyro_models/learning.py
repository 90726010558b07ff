r"""A normal distribution of the roots of a model, learned from draws of past data sets: Monte Carlo EM.

Given draws $u$ of the posteriors, the best mean and covariance are closed forms. While the draws still stand for the
posteriors under the new prior, by weights, further steps take them again; then they are drawn anew. The search ends
when the evidence, which the weights estimate, no longer rises by more than its error.

The hyperprior is drawn towards the model's own prior, with median $m$ and spread $s$ of each root: the mean is
$N(m, (2 s)^2)$, each standard deviation half-t with two degrees of freedom and scale s, and every correlation is as
probable as any other; it is the most probable log standard deviations that are found.

Source: Wei and Tanner, A Monte Carlo implementation of the EM algorithm (1990); Levine and Casella, Implementations of
the Monte Carlo EM algorithm (2001), for taking draws again; Huang and Wand, Simple marginally noninformative prior
distributions for covariance matrices (2013).
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from bayesmeta.data.validation import require_enough_tasks
from bayesmeta.mcmc.ladder.sampling import sample
from bayesmeta.numerics.linalg import symmetric
from bayesmeta.progress import tracked
from bayesmeta.pyro_models.checks import require_proper
from bayesmeta.pyro_models.targets import Learned, ModelPrior, ModelTargets, places, roots
from bayesmeta.warning_kinds import NotConvergedWarning, warn

__all__ = ["learn"]

MOST_ROUNDS = 30  # of new draws
MOST_STEPS = 200  # of EM on the same draws
NUM_CHAINS, NUM_DRAWS = 4, 100
KEPT = 0.5  # share of the draws of each data set that weights must leave effective, on average
STEP = 1e-3  # change of the mean and of log scales, in their units, at which EM on the same draws stands still
DF = 2.0  # of the half-t distribution of standard deviations
POINTS = 4001  # draws of the model's own prior by which its medians and spreads are found
CENTRE = 2.0  # standard deviation of the mean, in spreads of the model's own prior


def learn(prior: ModelPrior, start: Learned | None, weight: float, progress: bool, generator: Generator) -> Learned:
    """The distribution of the roots that past data sets, those of `prior`, make most probable.

    Raises:
        ValueError: fewer than two data sets have rows.

    Warns:
        NotConvergedWarning: the evidence still rose when the search ended, or draws of data sets fail their checks.
    """
    require_enough_tasks(prior.given.mask.sum(-1), torch.Size())
    used = prior[prior.given.mask.any(-1).nonzero()[:, 0]]
    require_proper(ModelTargets(used))
    hyperprior = _Hyperprior.of(used, weight)
    learned = start or Learned(hyperprior.loc, torch.diag(hyperprior.spread))
    for _ in tracked(range(MOST_ROUNDS), "Monte Carlo EM", shown=progress):
        here = replace(used, learned=learned)
        draws = sample(
            ModelTargets(here), num_draws=NUM_DRAWS, num_chains=NUM_CHAINS, progress=False, generator=generator
        )
        x = draws.position.flatten(0, 1)[..., places(roots(here.program.structure))]
        better, gain, error, moves = _steps(x, learned, hyperprior)
        learned = better
        if gain < max(2.0 * error, STEP) and not moves:
            return learned
    warn(
        f"the evidence of past tasks still rose, by {gain:.2g} with standard error {error:.2g}, in the last of "
        f"{MOST_ROUNDS} rounds. Learn from the prior that came out, by prior.fit(tasks)",
        NotConvergedWarning,
    )
    return learned


class _Hyperprior:
    """Medians and spreads of the roots under the model's own prior, and how much they weigh."""

    def __init__(self, loc: Tensor, spread: Tensor, weight: float) -> None:
        self.loc, self.spread, self.weight = loc, spread, weight

    @classmethod
    def of(cls, prior: ModelPrior, weight: float) -> "_Hyperprior":
        own = replace(prior[[0]], learned=None)
        x = own.sample_params(POINTS, generator=Generator().manual_seed(0))[:, 0]
        x = x[:, places(roots(own.program.structure))].sort(0).values
        low, middle, high = (x[round(q * (POINTS - 1))] for q in (0.1587, 0.5, 0.8413))
        return cls(middle, 0.5 * (high - low), weight)

    def best(self, mean: Tensor, moment: Tensor, tasks: int, now: Learned) -> Learned:
        """The next mean and covariance, from those of the draws of all data sets: mean `(r,)`, second moment `(r, r)`.

        The scales of the hyperprior's covariance are integrated out as in EM, given the covariance `now`.
        """
        r, weight = len(mean), self.weight
        precision = torch.cholesky_inverse(now.scale_tril)
        centre = weight / (CENTRE * self.spread).square()
        loc = torch.linalg.solve(tasks * precision + torch.diag(centre), tasks * precision @ mean + centre * self.loc)
        scatter = moment - torch.outer(mean, mean) + torch.outer(mean - loc, mean - loc)
        inverse_scale = 0.5 * (DF + r) / (DF * precision.diagonal() + self.spread.square().reciprocal())
        prior = weight * 2.0 * DF * torch.diag(inverse_scale)
        cov = (prior + tasks * scatter) / (tasks + weight * (DF + r - 1.0))
        return Learned(loc, torch.linalg.cholesky(symmetric(cov)))

    def log_density(self, learned: Learned) -> float:
        """Up to a constant, in the mean and the log standard deviations."""
        r = len(learned.loc)
        z = (learned.loc - self.loc) / (CENTRE * self.spread)
        precision = torch.cholesky_inverse(learned.scale_tril)
        tails = torch.log1p(self.spread.square() * DF * precision.diagonal()).sum()
        scale = learned.scale_tril.diagonal().log().sum()
        return self.weight * float(-0.5 * z.square().sum() - 0.5 * (DF + r) * tails - (DF + r - 1.0) * scale)


def _steps(x: Tensor, learned: Learned, hyperprior: _Hyperprior) -> tuple[Learned, float, float, bool]:
    """EM on draws `(n, T, r)` under `learned`, for as long as their weights allow.

    Returns:
        what is best; how much the log evidence of all data sets and of the hyperprior has risen, its standard error;
        and whether the last step still moved.
    """
    n, tasks, _ = x.shape
    before, density = learned.log_prob(x), hyperprior.log_density(learned)
    weights = torch.full((n, tasks), 1.0 / n, dtype=x.dtype)
    gain, error, moves = 0.0, 0.0, True
    for _ in range(MOST_STEPS):
        mean = (weights[..., None] * x).sum((0, 1)) / tasks
        moment = torch.einsum("nt,nti,ntj->ij", weights, x, x) / tasks
        new = hyperprior.best(mean, moment, tasks, learned)
        log_ratio = new.log_prob(x) - before
        ratio = log_ratio.softmax(0)
        size = 1.0 / ratio.square().sum(0)
        moves = _distance(learned, new) > STEP
        if float(size.mean()) < KEPT * n and gain:
            break
        learned, weights = new, ratio
        rise = log_ratio.logsumexp(0) - math.log(n)
        gain = float(rise.sum()) + hyperprior.log_density(new) - density
        error = float(((n / size - 1.0) / n).clamp(min=0.0).sum().sqrt())
        if not moves:
            break
    return learned, gain, error, moves


def _distance(a: Learned, b: Learned) -> float:
    """Largest change of a mean, in standard deviations, and of a log standard deviation."""
    sd = [learned.scale_tril.square().sum(-1).sqrt() for learned in (a, b)]
    return max(float(((a.loc - b.loc) / sd[0]).abs().amax()), float((sd[1] / sd[0]).log().abs().amax()))
