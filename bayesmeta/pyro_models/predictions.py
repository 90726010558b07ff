"""Draws of a Pyro model's latent sites as functions of new rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent

from bayesmeta.doors import Draws
from bayesmeta.pyro_models.reading.program import Program
from bayesmeta.pyro_models.reading.rows import Given, as_given
from bayesmeta.pyro_models.targets import Learned, ModelPrior

__all__ = ["ModelFunctions", "asked"]


@dataclass(frozen=True, eq=False)
class ModelFunctions(Draws):
    """Draws of the latent sites of each data set. f(x) is the mean of the observed site at the rows of x.

    A latent site inside the data plate has values of its own at new rows: these are drawn, by `seed`, whenever rows are
    asked about.

    Args:
        position: unconstrained `(draws, T, d)`, by the sites of `program`.
        example: one data set, which says what the arguments of the model are.
        learned: distribution of the roots in place of the model's own.
        alone: whether there is no axis of data sets.
    """

    program: Program
    position: Tensor
    example: Given
    learned: Learned | None = None
    alone: bool = True
    seed: int = 0

    def __call__(self, x: Any = None) -> Tensor:
        return self.predict(x).mean

    def predict(self, x: Any = None) -> Distribution:
        """p(y | x, each draw), `(draws, *batch, q)`."""
        given = asked(self.program.model, x, self.example, self.position.shape[1])
        program, position = self._at(given)
        name = program.structure.observed[0]
        fn = program.functions(position, given, (name,), alone=self.alone and given.alone)[name]
        plate = program.structure.plate
        if plate is None:
            raise ValueError(f"the model has no data plate: site {name!r} does not say which of its axes are rows")
        outputs = -plate.dim - 1
        return Independent(fn, outputs) if outputs else fn

    def _at(self, given: Given) -> tuple[Program, Tensor]:
        """The model at new rows, and positions of its sites there."""
        program = self.program.at(given)
        position = self.position.expand(-1, given.num_tasks, -1)
        if not any(site.local for site in program.structure.latent):
            return program, position
        new = position.new_zeros(*position.shape[:-1], program.structure.d)
        known = []
        for old, site in zip(self.program.structure.latent, program.structure.latent, strict=True):
            if not site.local:
                new[..., site.start : site.stop] = position[..., old.start : old.stop]
                known.append(site.name)
        generator = Generator().manual_seed(self.seed)
        return program, ModelPrior(program, given, self.learned).completed(new, tuple(known), generator)


def asked(model: Any, x: Any, example: Given, num_tasks: int) -> Given:
    """Arguments of a model that is asked about rows.

    Args:
        x: rows `(*batch, q, d)`, or None for one row without features, where the model has an argument `x`; else a
            mapping of tensors with data sets first. Arguments by row that it lacks, such as what was observed, are
            zero: they count for nothing.
    """
    if isinstance(x, Mapping):
        tensors, mask, alone = as_given(model, x)
        tasks = len(next(iter(tensors.values())))
        rows = [value.shape[1] for name, value in tensors.items() if name in example.with_rows]
        q = rows[0] if rows else 1
    else:
        x = torch.zeros(1, 0, dtype=torch.float64) if x is None else torch.as_tensor(x).double()
        alone, mask = x.ndim == 2, None
        if alone:
            x = x.expand(num_tasks, *x.shape)
        tensors = {"x": x} if "x" in example.tensors else {}
        tasks, q = x.shape[:2]
    for name in example.with_rows:
        if name not in tensors:
            like = example.tensors[name]
            tensors[name] = like.new_zeros(tasks, q, *like.shape[2:])
    real = torch.ones(tasks, q, dtype=torch.bool) if mask is None else mask
    return Given(tensors, real, example.with_rows, alone)


def first_of(given: Given) -> Given:
    """One data set as an example."""
    return replace(given._some([0]), alone=True)
