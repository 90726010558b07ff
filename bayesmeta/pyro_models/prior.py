r"""A Pyro model as a family of priors: exact posteriors of many data sets, with a prior learned from past ones.

The model is written for one data set. Its latent sites $z$ are mapped to real numbers, $u = T^{-1}(z)$, and

$$ \log p(u, y) = \log p(z) + \log|\partial T / \partial u| + \log p(y \mid z). $$

A learned prior has a normal distribution over the unconstrained *roots*, the sites outside the data plate whose prior
depends on no other site; the other sites keep what the model says of them given the roots. A posterior keeps all rows
and holds draws that `bayesmeta.mcmc.sample` made and checked; more rows sample again from the prior.

Source: Bingham et al., Pyro: Deep universal probabilistic programming (2019); Kucukelbir et al., Automatic
differentiation variational inference (2017), for the transforms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.describe import plural
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.io import save
from bayesmeta.mcmc.draws import Draws
from bayesmeta.mcmc.ladder.sampling import sample
from bayesmeta.pyro_models.bridge import bridge_evidence
from bayesmeta.pyro_models.checks import require_proper
from bayesmeta.pyro_models.gaussian_layer import gaussian_layer, sampled_in_layers
from bayesmeta.pyro_models.predictions import ModelFunctions
from bayesmeta.pyro_models.reading.program import Program
from bayesmeta.pyro_models.reading.rows import Given, as_given, with_rows
from bayesmeta.pyro_models.reading.sites import structure
from bayesmeta.pyro_models.targets import Learned, ModelPrior, ModelTargets

if TYPE_CHECKING:
    import arviz

__all__ = ["PyroPrior", "given_of"]

PREDICTED_BY = 400  # draws whose predictions are averaged
SURE = 0.02  # standard error of an evidence below which no bridge is tried


@dataclass(frozen=True, eq=False)
class PyroPrior(TensorFields):
    """What `from_pyro(model)` learns and conditions.

    Args:
        program: the model and its sites.
        example: one data set, which says what the arguments of the model are.
        loc: mean of the unconstrained roots; None for the model's own prior.
        scale_tril: factor of their covariance.
        given: all rows that were seen, None for a prior.
        draws: of the posterior, unconstrained and checked.
        num_draws: of each chain.
        num_chains: of each data set.
        seed: of the draws of posteriors, so that equal rows have equal posteriors.
    """

    program: Program
    example: Given
    loc: Float[Tensor, "r"] | None = None
    scale_tril: Float[Tensor, "r r"] | None = None
    given: Given | None = None
    draws: Draws | None = None
    learned_from: LearnedFrom | None = None
    num_draws: int = 1000
    num_chains: int = 4
    seed: int = 0

    loaded_by: ClassVar[str] = "from_pyro(model).load(path)"

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size() if self.given is None else self.given.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        like = self.example.tensors.get("y")
        return torch.Size() if like is None else like.shape[2:]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def learned(self) -> Learned | None:
        """What takes the place of the model's own prior of its roots."""
        return None if self.loc is None or self.scale_tril is None else Learned(self.loc, self.scale_tril)

    def condition(self, data: Any) -> "PyroPrior":
        """Posterior after the rows of `data` and all before, sampled anew from the prior.

        Args:
            data: as of `from_pyro`; a data set may have no rows.

        Raises:
            ValueError: the density of a data set is NaN or infinite; or a posterior is improper: the message names the
                data set and the site.

        Warns:
            NotConvergedWarning: draws of some data sets did not pass their checks; `draws.report()` says which.
        """
        given = given_of(self.program, data)
        if self.given is not None:
            given = self.given + given
        targets = self._targets(given)
        require_proper(targets)
        return self._replace(program=targets.program, given=given, draws=self._drawn(targets))

    def _drawn(self, targets: ModelTargets) -> Draws:
        """Draws of the posteriors, with normal sites integrated out where there are some."""
        generator = Generator().manual_seed(self.seed)
        size: Any = {"num_draws": self.num_draws, "num_chains": self.num_chains, "generator": generator}
        layer = gaussian_layer(targets)
        if layer is not None and (draws := sampled_in_layers(layer, **size)) is not None:
            return draws
        return sample(targets, constrain=targets.constrain, progress=False, **size)

    def predict(self, x: Any = None) -> Distribution:
        """p(y | x) at each row, `(*batch, q)`: a mixture over draws of the latent sites, the same at every call.

        Args:
            x: `(*batch, q, d)`; None for a row without features; or a mapping of the model's arguments.
        """
        every = self._functions(self._some(PREDICTED_BY)).predict(x)
        axes = len(every.batch_shape)
        log_weights = torch.full((every.batch_shape[0], *[1] * (axes - 1)), 1.0 / every.batch_shape[0]).double().log()
        return MixtureDistribution(log_weights, every, -axes)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> ModelFunctions:
        """Draws of the latent sites, as functions of new rows."""
        return self._functions(self._flat_params(num_draws, generator))

    def log_evidence(self, data: Any) -> Tensor:
        """log p(rows) of each data set given the rows before, by importance sampling, or a bridge where that errs less.

        `log_evidence_error` is its standard error.
        """
        return self._evidence_of(data)[0]

    def log_evidence_error(self, data: Any) -> Tensor:
        """Standard error of `log_evidence`."""
        return self._evidence_of(data)[1]

    def _evidence_of(self, data: Any) -> tuple[Tensor, Tensor]:
        after = self.condition(data)
        value, error = after._evidence
        if self.given is not None:
            before, error_before = self._evidence
            value, error = value - before, torch.hypot(error, error_before)
        alone = not after.batch_shape
        return (value[0], error[0]) if alone else (value, error)

    @cached_property
    def _evidence(self) -> tuple[Tensor, Tensor]:
        """log p of all rows seen `(T,)`, and its standard error."""
        draws = cast(Draws, self.draws)
        value, error = draws.log_evidence.clone(), draws.log_evidence_error.clone()
        unsure = (~(error < SURE)).nonzero()[:, 0]
        if len(unsure):
            targets = self._targets(cast(Given, self.given))[unsure]
            generator = Generator().manual_seed(self.seed)
            bridged, bridged_error = bridge_evidence(targets, draws.position[:, :, unsure], generator)
            better = ~(error[unsure] <= bridged_error)
            value[unsure] = torch.where(better, bridged, value[unsure])
            error[unsure] = torch.where(better, bridged_error, error[unsure])
        return value, error

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Unconstrained latent sites `(num_draws, *batch, d)`; of a posterior, of the draws that it holds."""
        found = self._flat_params(num_draws, generator)
        return found if self.batch_shape else found[:, 0]

    def _flat_params(self, num_draws: int, generator: Generator | None) -> Tensor:
        """`(num_draws, T, d)`, T being 1 for a prior."""
        if self.draws is None:
            return self._prior.sample_params(num_draws, generator=generator)
        every = self.draws.position.flatten(0, 1)
        chosen = torch.randperm(len(every), generator=generator)
        rounds = -(-num_draws // len(every))
        return every[chosen.repeat(rounds)[:num_draws]]

    def _some(self, num_draws: int) -> Tensor:
        """Draws that are the same at every call, evenly spaced along the chains."""
        if self.draws is None:
            return self._flat_params(num_draws, Generator().manual_seed(self.seed))
        every = self.draws.position.flatten(0, 1)
        return every[:: max(1, len(every) // num_draws)]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of unconstrained sites `(..., *batch, d)`; of a posterior up to the error of its evidence."""
        flat = params if self.batch_shape else params[..., None, :]
        if self.given is None:
            found = self._prior.log_prob(flat)
        else:
            found = self._targets(self.given).log_density(flat) - self._evidence[0]
        return found if self.batch_shape else found[..., 0]

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        """Latent sites by name `(..., *batch, *shape)`."""
        flat = params if self.batch_shape else params[..., None, :]
        found = self._targets(self.example if self.given is None else self.given).constrain(flat)
        axis = params.ndim - 1
        return found if self.batch_shape else {name: value.squeeze(axis) for name, value in found.items()}

    @property
    def params(self) -> dict[str, Tensor]:
        """Draws of the latent sites of a posterior `(chains, draws, T, *shape)` by name."""
        return self._posterior_draws.params

    def fit(
        self, tasks: Any, *, hyperprior_weight: float = 1.0, progress: bool = True, generator: Generator | None = None
    ) -> "PyroPrior":
        """The most probable normal distribution of the roots after past data sets: see `pyro_models.learning`.

        Args:
            tasks: at least two data sets with rows.
            hyperprior_weight: 0 for plain empirical Bayes.
            progress: say how the evidence rises, where somebody looks.

        Raises:
            ValueError: fewer than two data sets have rows.
        """
        from bayesmeta.pyro_models.learning import learn

        given = given_of(self.program, tasks)
        generator = generator or Generator().manual_seed(self.seed)
        learned = learn(self._prior_of(given), self.learned, hyperprior_weight, progress, generator)
        return self._replace(
            loc=learned.loc, scale_tril=learned.scale_tril, learned_from=LearnedFrom.counts(given.mask.sum(-1))
        )

    def to_arviz(
        self, *, log_likelihood: bool = False, task_names: Sequence[Any] | None = None
    ) -> "arviz.InferenceData":
        """Draws of a posterior as arviz has them, sites by their names, with the dimension `task`.

        Args:
            log_likelihood: add the log density of each row; it takes draws times rows numbers.
            task_names: labels of the data sets.
        """
        draws, given = self._posterior_draws, cast(Given, self.given)
        named = draws if task_names is None else replace(draws, task_names=task_names)
        seen = {name: value.numpy() for name, value in given.tensors.items()}
        rows = None
        if log_likelihood:
            found = self._targets(given).program.run(draws.position, given.filled(), lambda run: dict(run.by_row))
            rows = {name: value.where(given.mask, torch.nan).numpy() for name, value in found.items()}
        return named.to_arviz(observed_data=seen, log_likelihood=rows)

    def save(self, path: str | Path) -> None:
        """Write all but the model, which is code; `from_pyro(model).load(path)` puts both together."""
        save(self, path)

    def __getitem__(self, index: Any) -> "PyroPrior":
        """Some of the data sets of a posterior."""
        if not self.batch_shape:
            raise IndexError("this PyroPrior has no batch to index")
        given = cast(Given, self.given)[index]
        every = torch.arange(self.batch_shape[0])[index].reshape(-1)
        return self._replace(given=given, draws=_some_draws(cast(Draws, self.draws), every, self._targets(given)))

    @property
    def _posterior_draws(self) -> Draws:
        if self.draws is None:
            raise ValueError("a prior holds no draws: condition it on data first, or call sample_params")
        return self.draws

    @property
    def _prior(self) -> ModelPrior:
        return self._prior_of(self.example)

    def _prior_of(self, given: Given) -> ModelPrior:
        return ModelPrior(self.program.at(given), given.filled(), self.learned)

    def _targets(self, given: Given) -> ModelTargets:
        return ModelTargets(self._prior_of(given))

    def _functions(self, position: Tensor) -> ModelFunctions:
        alone = not self.batch_shape
        return ModelFunctions(self.program, position, self.example, self.learned, alone, self.seed)

    def _title(self) -> str:
        sites = ", ".join(site.name for site in self.program.structure.latent)
        words = [f"of {getattr(self.program.model, '__name__', 'a model')} with {sites}"]
        if self.given is not None:
            words.append(f"given {plural(int(self.given.mask.sum()), 'row')} of {plural(self.given.num_tasks, 'task')}")
        if self.learned_from is not None:
            words.append(
                f"learned from {plural(self.learned_from.tasks, 'task')}, {plural(self.learned_from.rows, 'row')}"
            )
        return "; ".join(words)

    def _parts(self) -> dict[str, Any]:
        return {"loc": self.loc, "scale_tril": self.scale_tril, "draws": self.draws}

    def _compared(self) -> dict[str, Any]:
        given = None if self.given is None else self.given.filled()
        tensors = None if given is None else given.tensors
        position = None if self.draws is None else self.draws.position
        return {"loc": self.loc, "scale_tril": self.scale_tril, "tensors": tensors, "position": position}

    def state_dict(self) -> dict[str, Any]:
        """All but the model."""
        from bayesmeta.pyro_models.saving import state_of

        return state_of(self)


def _some_draws(draws: Draws, index: Tensor, targets: ModelTargets) -> Draws:
    """Draws of the data sets `index`, which `targets` are of."""
    names = draws.names
    return replace(
        draws,
        chains=draws.chains[index],
        rung=draws.rung[index],
        passed=draws.passed[index],
        worst_rhat=draws.worst_rhat[index],
        least_ess=draws.least_ess[index],
        to_params=targets.constrain,
        task_names=[names[i] for i in index.tolist()],
    )


def given_of(program: Program, data: Any) -> Given:
    """Arguments of the model of `program`, what is by row told apart from what is by data set.

    Raises:
        ValueError: rows have no plate in the model, or tensors have other rows than the mask.
    """
    tensors, mask, alone = as_given(program.model, data)
    plate = structure(program.model, {name: value[0] for name, value in tensors.items()}, program.plate).plate
    return with_rows(tensors, mask, None if plate is None else plate.size, alone)
