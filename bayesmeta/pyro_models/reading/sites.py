"""What a Pyro model samples: its latent sites, their places in one unconstrained vector, and its data plate."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Generator, Tensor
from torch.distributions import biject_to

from bayesmeta.random import seeded

__all__ = ["Model", "Plate", "Site", "Structure", "in_float64", "is_plate_index", "structure"]

Model = Callable[..., Any]
SEED = 0  # of the draws at which a model is looked at: what it samples may not depend on them


@dataclass(frozen=True)
class Site:
    """A latent site.

    Args:
        name: as the model has it.
        shape: of its value for one data set.
        unconstrained: shape of what its value is a function of, real numbers without bounds.
        start: where it begins in the vector of all sites.
        local: whether it is inside the data plate, so that each row has one.
        proper: whether values can be drawn of its prior.
        parents: latent sites that its prior depends on.
    """

    name: str
    shape: torch.Size
    unconstrained: torch.Size
    start: int
    local: bool = False
    proper: bool = True
    parents: tuple[str, ...] = ()

    @property
    def stop(self) -> int:
        return self.start + self.unconstrained.numel()

    def of(self, position: Tensor) -> Tensor:
        """Its part of positions `(..., d)`, unconstrained."""
        return position[..., self.start : self.stop].reshape((*position.shape[:-1], *self.unconstrained))


@dataclass(frozen=True)
class Plate:
    """The plate whose indices are the rows of a data set.

    Args:
        dim: its axis, counted from the last axis of the batch of a distribution.
        size: rows.
    """

    name: str
    dim: int
    size: int


@dataclass(frozen=True)
class Structure:
    """All sites of a model, for data sets of some shape."""

    latent: tuple[Site, ...]
    observed: tuple[str, ...]
    plate: Plate | None

    @property
    def d(self) -> int:
        return self.latent[-1].stop

    @property
    def kinds(self) -> dict[str, str]:
        """What each site is, by name: for comparing structures, whatever the number of rows."""
        latent = {site.name: f"latent {'row by row' if site.local else tuple(site.shape)}" for site in self.latent}
        return latent | dict.fromkeys(self.observed, "observed")


@contextmanager
def in_float64() -> Iterator[None]:
    """Numbers that a model makes are float64, and nothing that it makes is validated: checks look at values."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.set_default_dtype(before)


def is_plate_index(message: Mapping[str, Any]) -> bool:
    """Whether a site is the indices of a plate, which Pyro samples too."""
    return type(message["fn"]).__name__ == "_Subsample"


def structure(model: Model, data: Mapping[str, Tensor], plate: str | None, number: int = 0) -> Structure:
    """The sites of `model` for one data set, whose latent sites have random values.

    Args:
        data: its tensors.
        plate: name of the data plate, where several could be it.
        number: of the random values.

    Raises:
        ValueError: there is no latent site, or one that is discrete or cannot be mapped to real numbers; a plate has
            subsamples; there are parameters without a prior; or which plate is that of rows is not clear.
    """
    record = _Record()
    generator = Generator().manual_seed(SEED + number)
    with in_float64(), seeded(generator), record:
        model(**data)
    if not record.latent:
        raise ValueError("the model has no latent site: there is nothing to learn. Give its unknowns by pyro.sample")
    if not record.observed:
        raise ValueError("the model has no observed site: give what was seen by pyro.sample(..., obs=y)")
    found = _data_plate(record, plate)
    latent, start = [], 0
    for name, (shape, free, frames, proper) in record.latent.items():
        local = found is not None and any(frame.name == found.name for frame in frames)
        latent.append(Site(name, shape, free, start, local, proper))
        start += free.numel()
    return Structure(tuple(latent), tuple(record.observed), found)


class _Record(Messenger):
    """Draws every latent site and writes down what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.latent: dict[str, tuple[torch.Size, torch.Size, list[Any], bool]] = {}
        self.observed: dict[str, list[Any]] = {}

    def _pyro_param(self, message: dict[str, Any]) -> None:
        raise ValueError(
            f"pyro.param {message['name']!r} has no prior: sample it by pyro.sample, or put a number in its place"
        )

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        name, fn = message["name"], message["fn"]
        if is_plate_index(message):
            if message["value"] is None and fn.subsample_size not in (None, fn.size):
                raise ValueError(f"plate {name!r} takes a subsample of its rows; give all of them")
            return
        frames = [frame for frame in message["cond_indep_stack"] if frame.vectorized]
        if message["is_observed"]:
            if not message["infer"].get("_deterministic"):
                self.observed[name] = frames
            return
        value, free, proper = _draw(name, fn)
        message["value"], message["done"] = value, True
        self.latent[name] = (value.shape, free, frames, proper)


def _draw(name: str, fn: Any) -> tuple[Tensor, torch.Size, bool]:
    """A value of a latent site, the shape of the real numbers that it comes from, and whether its prior was drawn."""
    support = fn.support
    if support.is_discrete:
        raise ValueError(
            f"site {name!r} is latent and discrete ({type(fn).__name__}): sum it out, as by a mixture distribution, or "
            "make it observed"
        )
    try:
        transform = biject_to(support)
    except NotImplementedError:
        raise ValueError(
            f"site {name!r} has a support that cannot be mapped to real numbers: {support}. Sample other coordinates "
            "and compute it from them"
        ) from None
    shape = torch.Size(transform.inverse_shape(fn.shape()))
    try:
        return fn.sample(), shape, True
    except NotImplementedError:  # an improper prior
        return transform(torch.randn(shape)), shape, False


def _data_plate(record: _Record, name: str | None) -> Plate | None:
    """The plate around all observed sites, None where there is none."""
    common: dict[str, Any] | None = None
    for frames in record.observed.values():
        here = {frame.name: frame for frame in frames}
        common = here if common is None else {key: frame for key, frame in common.items() if key in here}
    assert common is not None  # there are observed sites
    if name is not None:
        if name not in common:
            raise ValueError(
                f"plate {name!r} is not around every observed site; those that are: {', '.join(common) or 'none'}"
            )
        common = {name: common[name]}
    if len(common) > 1:
        raise ValueError(f"which plate holds the rows? {', '.join(common)} could. Name it: from_pyro(model, plate=...)")
    for frame in common.values():
        return Plate(frame.name, frame.dim, int(frame.size))
    return None
