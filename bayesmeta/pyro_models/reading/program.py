"""A Pyro model run at many positions of many data sets at once.

The model runs once, under `torch.func.vmap` over draws and data sets: its handlers cost the same for one density as for
a million. A model that cannot run so, since what it does depends on values, runs in a loop, and a warning says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from bayesmeta.pyro_models.reading.lifting import inner_tensors, lifted
from bayesmeta.pyro_models.reading.rows import Given
from bayesmeta.pyro_models.reading.sites import Model, Structure, in_float64, is_plate_index, structure
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["Program", "Run"]

Of = Callable[["Run"], Any]  # what is asked of a run: tensors
SAME = 1e-10  # relative difference that rounding makes between one data set and many


class Run(Messenger):
    """One run of a model at a position, and what it said.

    Args:
        structure: the sites that it must have.
        position: of all latent sites, `(d,)`.
        mask: which rows are real `(n,)`.
    """

    def __init__(self, structure: Structure, position: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.structure, self.position, self.mask = structure, position, mask
        self.sites = {site.name: site for site in structure.latent}
        self.prior: dict[str, Tensor] = {}  # log density of each latent site, with the Jacobian of its transform
        self.likelihood: dict[str, Tensor] = {}  # log density of each observed site, of real rows
        self.by_row: dict[str, Tensor] = {}  # the same of each row of the data plate, before it is summed
        self.values: dict[str, Tensor] = {}
        self.functions: dict[str, Any] = {}

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if is_plate_index(message) or message["infer"].get("_deterministic"):
            return
        name = message["name"]
        self.functions[name] = message["fn"]
        if name in self.sites and not message["is_observed"]:
            self._latent(message)
        elif name in self.structure.observed:
            self._observed(message)
        else:
            raise ValueError(
                f"the trace of the model changes between runs: site {name!r} is new. Every run must have the same sites"
            )

    def _latent(self, message: dict[str, Any]) -> None:
        name, fn = message["name"], message["fn"]
        free = self.sites[name].of(self.position)
        transform = biject_to(fn.support)
        value = transform(free)
        message["value"], message["done"] = value, True
        density = scale_and_mask(fn.log_prob(value), message["scale"], message["mask"]).sum()
        self.values[name] = value
        self.prior[name] = density + transform.log_abs_det_jacobian(free, value).sum()

    def _observed(self, message: dict[str, Any]) -> None:
        name, fn = message["name"], message["fn"]
        if not message["is_observed"]:  # it is asked for: any value will do, and counts for nothing
            message["value"], message["done"] = torch.zeros(fn.shape()), True
            return
        density = scale_and_mask(fn.log_prob(message["value"]), message["scale"], message["mask"])
        plate = self.structure.plate
        if plate is not None:
            real = self.mask.reshape((-1, *[1] * (-plate.dim - 1)))
            rows = density.where(real, 0.0).movedim(plate.dim, 0)
            self.by_row[name] = density = rows.flatten(1).sum(1) if rows.ndim > 1 else rows
        self.likelihood[name] = density.sum()

    def finish(self) -> None:
        """Raise ValueError where a site is missing."""
        for name in (*self.sites, *self.structure.observed):
            if name not in self.functions:
                raise ValueError(
                    f"the trace of the model changes between runs: site {name!r} is missing. Every run must have the "
                    "same sites"
                )

    @property
    def log_prior(self) -> Tensor:
        return torch.stack(list(self.prior.values())).sum()

    @property
    def log_likelihood(self) -> Tensor:
        return torch.stack(list(self.likelihood.values())).sum()


@dataclass(frozen=True)
class Program:
    """A model, and its sites for data sets of some shape.

    Args:
        model: the function.
        structure: its sites.
        plate: name of the data plate, where it was given.
        looped: whether it cannot run for many data sets at once.
    """

    model: Model
    structure: Structure
    plate: str | None = None
    looped: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, model: Model, example: Mapping[str, Tensor], plate: str | None = None) -> "Program":
        """Sites as of a data set, compared between two runs."""
        first, second = (structure(model, example, plate, number) for number in range(2))
        _require_same(first, second)
        return cls(model, first, plate)

    def at(self, given: Given) -> "Program":
        """The same for data sets of another shape: how many values a site inside the data plate has may differ."""
        if given.num_tasks == 0:
            raise ValueError("data must hold at least one data set; got none")
        found = structure(self.model, given.one(), self.plate)
        _require_same(self.structure, found)
        if found == self.structure:
            return self
        parents = {site.name: site.parents for site in self.structure.latent}
        latent = tuple(replace(site, parents=parents[site.name]) for site in found.latent)
        return replace(self, structure=replace(found, latent=latent))

    def run(self, position: Tensor, given: Given, of: Of) -> Any:
        """What `of` says of a run at each position `(*draws, T, d)`: tensors `(*draws, T, ...)`."""
        draws = position.shape[:-2]
        flat = position.reshape(-1, *position.shape[-2:])
        with in_float64():
            found = self._loop(flat, given, of) if self.looped else self._at_once(flat, given, of)
        return _each(found, lambda value: value.reshape(*draws, *value.shape[1:]))

    def _one(self, position: Tensor, tensors: Mapping[str, Tensor], mask: Tensor, of: Of) -> Any:
        with Run(self.structure, position, mask) as run:
            self.model(**tensors)
        run.finish()
        return of(run)

    def _at_once(self, flat: Tensor, given: Given, of: Of) -> Any:
        def of_task(position: Tensor, tensors: Mapping[str, Tensor], mask: Tensor) -> Any:
            # draws innermost: a product of rows and weights is then one of matrices for each data set
            return torch.func.vmap(lambda at: self._one(at, tensors, mask, of))(position)

        found = torch.func.vmap(of_task, in_dims=(1, 0, 0))(flat, dict(given.tensors), given.mask)
        return _each(found, lambda value: value.movedim(0, 1))

    def _loop(self, flat: Tensor, given: Given, of: Of) -> Any:
        if not len(flat):  # the shapes of what there is none of
            some = self._loop(flat.new_zeros(1, *flat.shape[1:]), given, of)
            return _each(some, lambda value: value[:0])
        each = [
            _stacked([self._one(at, given.one(task), given.mask[task], of) for at in flat[:, task]])
            for task in range(given.num_tasks)
        ]
        return _stacked(each, 1)

    def functions(
        self, position: Tensor, given: Given, names: tuple[str, ...], *, alone: bool = False
    ) -> dict[str, Any]:
        """Distributions of sites at positions `(*draws, T, d)`, with `(*draws, T)` in front of their batches.

        Args:
            alone: leave the axis of data sets out, where there is one.
        """
        seen: dict[str, Any] = {}

        def of(run: Run) -> dict[str, list[Tensor]]:
            seen.update({name: run.functions[name] for name in names})
            return {name: inner_tensors(run.functions[name]) for name in names}

        tensors, lead = self.run(position, given, of), position.shape[:-1]
        if alone:
            tensors, lead = _each(tensors, lambda value: value.squeeze(len(lead) - 1)), lead[:-1]
        return {name: lifted(seen[name], tensors[name], lead) for name in names}

    def settled(self, given: Given, position: Tensor) -> "Program":
        """The same, having found whether it can run for many at once, and which sites depend on which.

        Args:
            position: draws `(2, T, d)` of a few data sets.
        """
        found = self._tried(given, position)
        return replace(found, structure=found._with_parents(given, position))

    def _tried(self, given: Given, position: Tensor) -> "Program":
        alone = replace(self, looped=True)
        expected = alone.run(position, given, _density)
        try:
            got = self.run(position, given, _density)
            why = "its densities differ then" if not _agree(got, expected) else ""
        except (RuntimeError, NotImplementedError, ValueError) as error:  # what vmap says of what it cannot do
            why = str(error).strip().split("\n")[0]
        if not why:
            return self
        warn(f"the model cannot run for many data sets at once, and runs in a loop: {why}", BayesmetaWarning)
        return alone

    def _with_parents(self, given: Given, position: Tensor) -> Structure:
        """Which latent sites the prior of each depends on: those whose change changes it."""
        latent = self.structure.latent
        base = position[0, :1]
        moved = base.repeat(len(latent) + 1, 1, 1)
        for i, site in enumerate(latent):
            moved[i + 1, :, site.start : site.stop] += 0.1
        density = self.run(moved, given[:1], lambda run: run.prior)
        names = [site.name for site in latent]
        return replace(
            self.structure,
            latent=tuple(
                replace(
                    site,
                    parents=tuple(
                        other
                        for i, other in enumerate(names)
                        if other != site.name and not _agree(density[site.name][i + 1], density[site.name][0])
                    ),
                )
                for site in latent
            ),
        )


def _density(run: Run) -> Tensor:
    return run.log_prior + run.log_likelihood


def _agree(got: Tensor, expected: Tensor) -> bool:
    return torch.allclose(got, expected, rtol=SAME, atol=SAME, equal_nan=True)


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return change(value)


def _stacked(values: list[Any], axis: int = 0) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _stacked([value[key] for value in values], axis) for key in first}
    if isinstance(first, list):
        return [_stacked([value[i] for value in values], axis) for i in range(len(first))]
    return torch.stack(values, axis)


def _require_same(first: Structure, second: Structure) -> None:
    """The same sites of the same kinds, however many rows there are."""
    before, after = first.kinds, second.kinds
    for name in (*before, *after):
        if before.get(name) != after.get(name):
            raise ValueError(
                f"the trace of the model changes between runs: site {name!r} is {before.get(name, 'missing')} in one "
                f"and {after.get(name, 'missing')} in another. Every run must have the same sites"
            )
    plates = [None if found.plate is None else replace(found.plate, size=0) for found in (first, second)]
    if plates[0] != plates[1]:
        raise ValueError(f"the data plate of the model changes between runs: {plates[0]} and {plates[1]}")
