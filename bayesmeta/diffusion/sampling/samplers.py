"""Samplers of posteriors by name: the weighted one, and approximate ones to compare it with."""

from bayesmeta.diffusion.sampling.approximate.diffts import diffts
from bayesmeta.diffusion.sampling.approximate.dps import dps
from bayesmeta.diffusion.sampling.approximate.laplace_dps import laplace_dps
from bayesmeta.diffusion.sampling.approximate.unweighted import unweighted
from bayesmeta.diffusion.sampling.gaussians import Sampler
from bayesmeta.diffusion.sampling.posterior import weighted

__all__ = ["DEFAULT", "sampler_named"]

DEFAULT = "weighted"
SAMPLERS: dict[str, Sampler] = {
    DEFAULT: weighted,
    "unweighted": unweighted,
    "diffts": diffts,
    "laplace_dps": laplace_dps,
    "dps": dps,
}


def sampler_named(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(map(repr, SAMPLERS))}; got {name!r}")
    return SAMPLERS[name]
