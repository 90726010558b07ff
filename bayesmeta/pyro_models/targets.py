"""Posteriors of a Pyro model for many data sets, as targets of `bayesmeta.mcmc`, and the prior that they start from."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import biject_to

from bayesmeta.mcmc.targets import curvatures
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.pyro_models.reading.draws import drawn
from bayesmeta.pyro_models.reading.program import Program, Run
from bayesmeta.pyro_models.reading.rows import Given
from bayesmeta.pyro_models.reading.sites import Site, Structure
from bayesmeta.random import randn

__all__ = ["Learned", "ModelPrior", "ModelTargets", "roots"]

IMPROPER_SCALE = 3.0  # of draws, unconstrained, of a site whose prior has none


def roots(structure: Structure) -> tuple[Site, ...]:
    """Sites whose prior depends on no other, outside the data plate: what is learned from past data sets."""
    return tuple(site for site in structure.latent if not site.parents and not site.local)


def places(sites: tuple[Site, ...]) -> Tensor:
    """Where sites are in the vector of all."""
    return torch.cat([torch.arange(site.start, site.stop) for site in sites])


@dataclass(frozen=True)
class Learned:
    """A normal distribution of the roots, unconstrained, in place of the model's own.

    Args:
        loc: `(r,)`.
        scale_tril: `(r, r)`.
    """

    loc: Tensor
    scale_tril: Tensor

    def draw(self, shape: Any, generator: Generator | None) -> Tensor:
        noise = randn((*shape, len(self.loc)), like=self.loc, generator=generator)
        return self.loc + noise @ self.scale_tril.mT

    def log_prob(self, x: Tensor) -> Tensor:
        """Of `(..., r)`."""
        flat = (x - self.loc).reshape(-1, len(self.loc)).mT
        z = torch.linalg.solve_triangular(self.scale_tril, flat, upper=False)
        constant = self.scale_tril.diagonal().log().sum() + 0.5 * len(self.loc) * math.log(2.0 * math.pi)
        return (-0.5 * z.square().sum(0)).reshape(x.shape[:-1]) - constant


@dataclass(frozen=True, eq=False)
class ModelPrior:
    """The prior of a model's latent sites, for each of some data sets: a `Proposal`.

    Args:
        program: the model.
        given: the data sets, which a prior may depend on.
        learned: what takes the place of the model's own distribution of its roots.
    """

    program: Program
    given: Given
    learned: Learned | None = None

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size((self.given.num_tasks,))

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        start = torch.zeros(num_draws, self.given.num_tasks, self.program.structure.d, dtype=torch.float64)
        return self.completed(start, (), generator)

    def completed(self, position: Tensor, known: tuple[str, ...], generator: Generator | None) -> Tensor:
        """Positions `(n, T, d)` whose sites but the `known` ones are drawn anew, given those."""
        position, done = position.clone(), set(known)
        if self.learned is not None and not all(site.name in done for site in self._roots):
            position[..., places(self._roots)] = self.learned.draw(position.shape[:-1], generator)
            done |= {site.name for site in self._roots}
        while left := [site for site in self.program.structure.latent if site.name not in done]:
            ready = [site for site in left if done.issuperset(site.parents)] or left[:1]
            proper = tuple(site.name for site in ready if site.proper)
            found = self.program.functions(position, self.given, proper) if proper else {}
            for site in ready:
                position[..., site.start : site.stop] = _drawn(site, found.get(site.name), position, generator)
            done |= {site.name for site in ready}
        return position

    def log_prob(self, params: Tensor) -> Tensor:
        """Unnormalised where the model's own prior is."""
        return self.program.run(params, self.given, lambda run: self._log_prior(run, params))

    def _log_prior(self, run: Run, params: Tensor) -> Tensor:
        if self.learned is None:
            return run.log_prior
        return log_prior(run, self.learned, self._roots)

    @property
    def _roots(self) -> tuple[Site, ...]:
        return roots(self.program.structure)

    def __getitem__(self, index: Any) -> "ModelPrior":
        return replace(self, given=self.given._some(index))


def log_prior(run: Run, learned: Learned | None, of: tuple[Site, ...]) -> Tensor:
    """Log prior density of a run, `learned` being that of its roots `of`."""
    if learned is None:
        return run.log_prior
    names = {site.name for site in of}
    rest = [density for name, density in run.prior.items() if name not in names]
    density = learned.log_prob(run.position[places(of)])
    return torch.stack([density, *rest]).sum()


def _drawn(site: Site, fn: Any, position: Tensor, generator: Generator | None) -> Tensor:
    """Unconstrained values of a site `(n, T, size)`."""
    shape = position.shape[:-1]
    if fn is None:
        return IMPROPER_SCALE * randn((*shape, site.stop - site.start), like=position, generator=generator)
    free = biject_to(fn.support).inv(drawn(fn, generator))
    return free.reshape(*shape, -1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True, eq=False)
class ModelTargets:
    """Log density of the latent sites given the observed ones, unconstrained, of T data sets: `Targets`.

    Args:
        reference: the prior.
        program: the model, by which the sites of `reference` are.
    """

    reference: ModelPrior

    @property
    def program(self) -> Program:
        return self.reference.program

    @property
    def given(self) -> Given:
        return self.reference.given

    @property
    def num_tasks(self) -> int:
        return self.given.num_tasks

    @property
    def width(self) -> int:
        by_task = [value[:1].numel() for value in self.given.tensors.values()]
        return max([1, self.program.structure.d, *by_task])

    def log_density(self, positions: Tensor) -> Tensor:
        learned, of = self.reference.learned, roots(self.program.structure)
        return self.program.run(positions, self.given, lambda run: log_prior(run, learned, of) + run.log_likelihood)

    def log_likelihood(self, positions: Tensor) -> Tensor:
        """Of the observed sites alone, `(*draws, T)`."""
        return self.program.run(positions, self.given, lambda run: run.log_likelihood)

    @with_gradients
    def derivatives(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return curvatures(self.log_density, positions)

    def __getitem__(self, index: Tensor) -> "ModelTargets":
        return ModelTargets(self.reference[index])

    def constrain(self, positions: Tensor) -> dict[str, Tensor]:
        """Values of the latent sites `(*draws, T, *shape)` by name."""
        return self.program.run(positions, self.given, lambda run: run.values)
