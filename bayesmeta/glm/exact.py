"""Posteriors of regressions by draws that Metropolis-Hastings has corrected, where no normal about a mode will do.

After a few zeros a Poisson rate has a long tail towards zero, and separated classes one towards infinity. The draws are
those of `bayesmeta.mcmc.sample`, checked for each task, and `draws` says how far each is to be trusted.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Distribution

from bayesmeta.approximations.likelihoods import LOGISTIC
from bayesmeta.data.rows import Data
from bayesmeta.describe import Described
from bayesmeta.distributions.predictor_marginals import SCORES, ProbabilityMarginal, RateMarginal
from bayesmeta.glm.functions import LogisticFunctions, PoissonFunctions
from bayesmeta.glm.predictions import CountPrediction
from bayesmeta.glm.predictor import predictor, split
from bayesmeta.glm.targets import RegressionTargets
from bayesmeta.mcmc.draws import Draws
from bayesmeta.mcmc.ladder.sampling import sample
from bayesmeta.random import randint

if TYPE_CHECKING:  # which makes these
    from bayesmeta.glm.model import Regression

__all__ = ["ExactRegression", "exact_regression"]

MOST_COUNTS = 2**20  # densities of counts that are computed together


@dataclass(frozen=True, eq=False, repr=False)
class ExactRegression(Described):
    """A posterior by draws of its weights.

    Args:
        posterior: what it is the posterior of: prior, rows, mode and curvature.
        draws: weights of every task, and their diagnostics.
    """

    posterior: "Regression"
    draws: Draws

    @property
    def batch_shape(self) -> torch.Size:
        return self.posterior.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def weights(self) -> Tensor:
        """All draws, one chain after the other: `(chains * draws, *batch, d)`."""
        found = self.draws.params["weights"].flatten(0, 1)
        return found.reshape(len(found), *self.batch_shape, -1).to(self.posterior.loc)

    def condition(self, data: Data, *, generator: Generator | None = None) -> "ExactRegression":
        """The posterior after more rows, drawn anew from all of them."""
        _, _, chains, num_draws = self.draws.chains.position.shape
        more: Any = self.posterior.condition(data)
        return exact_regression(more, num_draws=num_draws, num_chains=chains, progress=False, generator=generator)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> LogisticFunctions | PoissonFunctions:
        """Functions with weights chosen among the draws."""
        kept = self.weights
        source = torch.Generator(kept.device) if generator is None else generator
        if generator is None:
            source.seed()
        return self.posterior.functions(kept[randint(len(kept), (num_draws,), generator=source).to(kept.device)])

    def marginal(self, x: Tensor) -> ProbabilityMarginal | RateMarginal:
        """p(probability of a one) or p(rate) at each row, by quantiles of the draws."""
        eta = self._predictors(x)
        value = self._values(eta)
        levels = torch.special.ndtr(SCORES).to(eta)
        ordered = eta.sort(0).values
        place = levels * (len(eta) - 1)
        low = place.floor().long().clamp(max=len(eta) - 2)
        share = (place - low).reshape(-1, *[1] * (eta.ndim - 1))
        quantiles = torch.lerp(ordered[low], ordered[low + 1], share).movedim(0, -1)
        # draws that are alike have no spread, and quantiles must increase
        least = 1e-12 * (1.0 + quantiles[..., :1].abs()) * torch.arange(float(len(SCORES))).to(eta)
        return self._kind.of(value.mean(0), value.var(0), quantiles + least)

    def predict(self, x: Tensor) -> Distribution:
        """p(y | x) at each row, the mean over draws."""
        value = self._values(self._predictors(x))
        trials = split(x, self.posterior.roles)[2].to(value)
        if self._kind is ProbabilityMarginal and self.posterior.roles.trials is None:
            return Bernoulli(probs=value.mean(0), validate_args=False)
        mean, var = value.mean(0), value.var(0)
        rate = self._kind is RateMarginal
        counts = (mean, mean + var) if rate else (trials * mean, trials * (mean - mean**2 - var) + trials**2 * var)
        return CountPrediction(
            *counts, lambda: self.marginal(x), lambda y: self._log_probs(x, y), None if rate else trials
        )

    def _log_probs(self, x: Tensor, y: Tensor) -> Tensor:
        """Log of the mean over draws of the probability of counts `(*batch, q)`."""
        likelihood = self.posterior.likelihood
        trials = split(x, self.posterior.roles)[2].double()
        eta = self._predictors(x).double()
        each = max(1, MOST_COUNTS // max(1, eta[0].numel()))
        parts = [likelihood.log_prob(part, y.double(), trials) for part in eta.split(each)]
        return torch.cat(parts).logsumexp(0) - torch.tensor(float(len(eta))).log()

    def _predictors(self, x: Tensor) -> Tensor:
        """`(draws, *batch, q)`."""
        return predictor(x, self.weights, self.posterior.roles)

    def _values(self, eta: Tensor) -> Tensor:
        return eta.sigmoid() if self._kind is ProbabilityMarginal else eta.exp()

    @property
    def _kind(self) -> type[ProbabilityMarginal] | type[RateMarginal]:
        return ProbabilityMarginal if self.posterior.likelihood is LOGISTIC else RateMarginal

    def _parts(self) -> dict[str, Any]:
        return {"draws": repr(self.draws).split("\n")[0], "of": repr(self.posterior).split("\n")[0]}


def exact_regression(
    posterior: "Regression",
    *,
    num_draws: int = 1000,
    num_chains: int = 4,
    progress: bool = True,
    generator: Generator | None = None,
) -> ExactRegression:
    """Draws of the exact posterior; see `Regression.exact`."""
    tasks = posterior.as_tasks()

    def constrain(positions: Tensor) -> dict[str, Tensor]:
        whole = tasks.whole[0].expand(*positions.shape[:-1], -1)
        if not tasks.known:
            return {"weights": positions}
        weights = whole.clone()
        weights[..., tasks.unknown] = positions
        return {"weights": weights}

    draws = sample(
        RegressionTargets.of(tasks),
        num_draws=num_draws,
        num_chains=num_chains,
        constrain=constrain,
        progress=progress,
        generator=generator,
    )
    return ExactRegression(posterior, draws)
