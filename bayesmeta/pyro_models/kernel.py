"""A kernel for `pyro.infer.MCMC` that proposes from a Laplace approximation with heavy tails, or from what was learned.

Source: Tierney, Markov chains for exploring posterior distributions (1994), section 2.3.3.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Generator, Tensor

from bayesmeta.mcmc.ladder.rungs import DEFENCE, NUM_POINTS, PILOT, Search, drawn
from bayesmeta.mcmc.proposals.adapted import adapted
from bayesmeta.mcmc.proposals.defended import defended
from bayesmeta.mcmc.proposals.laplace import distinct_modes
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.mcmc.targets import Proposal, evaluate
from bayesmeta.pyro_models.model import from_pyro
from bayesmeta.pyro_models.targets import ModelTargets
from bayesmeta.random import rand

__all__ = ["IndependenceKernel"]

STARTS = 4  # climbs by which modes are found
AT_ONCE = 256  # proposals that are made and weighed together


class IndependenceKernel(MCMCKernel):
    """Independence Metropolis-Hastings for one data set: `pyro.infer.MCMC(IndependenceKernel(model), ...)`.

    The proposal is adapted by a hundred draws before the first step and frozen then, so that warm-up is short. Samples
    are of the latent sites themselves: there is nothing to transform. For many data sets `from_pyro` is faster and
    checks what it returns.

    Args:
        model: as of `from_pyro`.
        proposal: of the unconstrained sites of the data set, from its targets, such as one that was learned; by default
            Student t distributions about the modes.
        plate: name of the data plate, where several could be it.
        generator: of all draws.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        proposal: Callable[[ModelTargets], Proposal] | None = None,
        plate: str | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.model, self.make_proposal, self.plate, self.generator = model, proposal, plate, generator
        self.transforms: dict[str, Any] = {}
        super().__init__()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(self.model).bind(*args, **kwargs).arguments
        data = {name: torch.as_tensor(value)[None] for name, value in given.items() if value is not None}
        self._targets = from_pyro(self.model, plate=self.plate).targets(data)
        self._proposal = self._adapted()
        self._waiting: list[tuple[dict[str, Tensor], Tensor]] = []
        self._rate, self._steps = 0.0, 0
        self._params, self._log_weight = self._next()

    def _adapted(self) -> Proposal:
        """The proposal, moved towards its target, with a share of the prior."""
        targets, g = self._targets, self.generator
        if self.make_proposal is not None:
            return defended(self.make_proposal(targets), targets.reference, DEFENCE)
        search = Search.of(targets, NUM_POINTS, g)
        for _ in range(STARTS):
            search.climb_from(1)
        proposal: Proposal = distinct_modes(search.modes)
        draws, log_q = drawn(proposal, 4 * PILOT, g)
        if isinstance(proposal, StudentMixture):
            proposal = adapted(proposal, draws, evaluate(targets, draws) - log_q)
        return defended(proposal, targets.reference, DEFENCE)

    @property
    def initial_params(self) -> dict[str, Tensor]:
        return self._params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        raise ValueError("IndependenceKernel finds its own starts: give no initial_params")

    @torch.no_grad()
    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step from where the chain is; the values of all latent sites."""
        new, log_weight = self._next()
        rate = float((log_weight - self._log_weight).nan_to_num(nan=-torch.inf).clamp(max=0.0).exp())
        self._steps += 1
        self._rate += (rate - self._rate) / self._steps
        if float(rand((), like=log_weight, generator=self.generator)) < rate:
            self._params, self._log_weight = new, log_weight
        return dict(self._params)

    @torch.no_grad()
    def _next(self) -> tuple[dict[str, Tensor], Tensor]:
        """Values of the sites at a draw of the proposal, and its log weight."""
        while not self._waiting:
            draws, log_q = drawn(self._proposal, AT_ONCE, self.generator)
            log_weight = (evaluate(self._targets, draws) - log_q)[:, 0]
            values = {name: value[:, 0].unbind() for name, value in self._targets.constrain(draws).items()}
            each = [dict(zip(values, parts, strict=True)) for parts in zip(*values.values(), strict=True)]
            self._waiting = list(zip(each, log_weight, strict=True))
        return self._waiting.pop()

    def logging(self) -> "OrderedDict[str, str]":
        return OrderedDict([("acc. prob", f"{self._rate:.3f}")])

    def diagnostics(self) -> dict[str, Any]:
        return {"acceptance rate": self._rate}
