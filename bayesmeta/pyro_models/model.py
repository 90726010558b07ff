"""`from_pyro`: a model that was written for one data set, ready for many."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bayesmeta.doors import counted
from bayesmeta.pyro_models.checks import require_proper
from bayesmeta.pyro_models.prior import PyroPrior
from bayesmeta.pyro_models.reading.program import Program
from bayesmeta.pyro_models.reading.rows import Given, as_given, with_rows
from bayesmeta.pyro_models.reading.sites import Model, structure
from bayesmeta.pyro_models.saving import loaded, settled_program
from bayesmeta.pyro_models.targets import ModelPrior, ModelTargets

__all__ = ["PyroModel", "from_pyro"]

MOST_CHECKED = 3  # data sets at which densities of many at once are compared with those of one at a time
SAME = 1e-8


@dataclass(frozen=True)
class PyroModel:
    """What `from_pyro` returns: it makes priors and targets of a model."""

    model: Model
    plate: str | None = None
    num_draws: int = 1000
    num_chains: int = 4

    def initial(self, tasks: Any) -> PyroPrior:
        """The model's own prior, for data sets like `tasks`.

        Args:
            tasks: `Data` for a model with arguments `x` and `y`, or `y` alone. For other arguments, a mapping of
                tensors by name with data sets first, in which "mask" `(T, n)` may say which rows are real; or a list
                of mappings, one for each data set, which are padded.

        Raises:
            ValueError: the model has no latent site, a discrete one, or other sites in another run; tensors differ in
                their number of data sets; or densities of a padded data set depend on its padding.

        Warns:
            BayesmetaWarning: the model cannot run for many data sets at once, and runs in a loop.
        """
        program, given = self._read(tasks)
        return PyroPrior(
            program, replace(given._some([0]), alone=True), num_draws=self.num_draws, num_chains=self.num_chains
        )

    def fit(self, tasks: Any, **options: Any) -> PyroPrior:
        """`initial(tasks).fit(tasks)`; see `PyroPrior.fit`."""
        return self.initial(tasks).fit(tasks, **options)

    def targets(self, data: Any) -> ModelTargets:
        """Posteriors of data sets under the model's own prior, for `bayesmeta.mcmc.sample`."""
        program, given = self._read(data)
        targets = ModelTargets(ModelPrior(program.at(given), given.filled()))
        require_proper(targets)
        return targets

    def load(self, path: str | Path) -> PyroPrior:
        """The prior, or posterior, that `save` wrote to `path`, with this model.

        Raises:
            ValueError: the model has other sites than that it was saved with; the message names one.
        """
        return loaded(PyroPrior, path, self.model, self.plate)

    def _read(self, data: Any) -> tuple[Program, Given]:
        tensors, mask, alone = as_given(self.model, data)
        plate = structure(self.model, {name: value[0] for name, value in tensors.items()}, self.plate).plate
        given = with_rows(tensors, mask, None if plate is None else plate.size, alone)
        some = given._some(torch.arange(min(MOST_CHECKED, given.num_tasks)).tolist())
        program = settled_program(self.model, some, self.plate)
        _require_by_row(program, given)
        return program, given


@counted(num_draws=1, num_chains=1)
def from_pyro(model: Any, *, plate: str | None = None, num_draws: int = 1000, num_chains: int = 4) -> PyroModel:
    """A Pyro model, written for one data set, as a family of priors over many.

    `from_pyro(model).fit(past)` learns a prior from past data sets; `.condition(data)` then holds draws of the exact
    posterior of each. Latent sites must be continuous. Observed sites inside one `pyro.plate`, whose size is the number
    of rows, may have other numbers of rows in other data sets; rows must meet nowhere else in the model.

    Args:
        model: called with tensors of one data set, by name, in float64.
        plate: name of the data plate, where several plates are around all observed sites.
        num_draws: of each chain of a posterior.
        num_chains: of each data set.

    Raises:
        TypeError: `model` cannot be called.
    """
    if not callable(model):
        raise TypeError(f"from_pyro needs a model, a function that calls pyro.sample; got {type(model).__name__}")
    return PyroModel(model, plate, num_draws, num_chains)


def _require_by_row(program: Program, given: Given) -> None:
    """A padded data set has the density that it has without its padding."""
    count = given.mask.sum(-1)
    short = int(torch.where(count > 0, count, count.max() + 1).argmin())
    n = int(count[short])
    if not given.is_ragged or not n or not bool(given.mask[short, :n].all()):
        return
    padded = given.filled()._some([short])
    bare = padded._replace(
        tensors={name: v[:, :n] if name in given.with_rows else v for name, v in padded.tensors.items()},
        mask=padded.mask[:, :n],
    )
    if any(site.local for site in program.structure.latent):
        return  # the padding has latent values of its own
    position = ModelPrior(program, bare).sample_params(2, generator=torch.Generator().manual_seed(0))
    with_it, without = (ModelTargets(ModelPrior(program, some)).log_density(position) for some in (padded, bare))
    if not torch.allclose(with_it, without, rtol=SAME, atol=SAME, equal_nan=True):
        raise ValueError(
            f"the density of task {short} depends on its padding: in the model rows meet outside the data plate, as in "
            "a mean over them. Give data sets of equal length, or compute such numbers before"
        )
