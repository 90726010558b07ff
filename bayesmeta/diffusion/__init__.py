"""Diffusion priors: `DiffusionPrior`, in `bayesmeta`, and here what it is made of and how it learns."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["DenoiserNetwork", "DiffusionSchedule", "GridDenoiser", "TemperedWarning"]

if TYPE_CHECKING:
    from bayesmeta.diffusion.denoising.denoiser import DenoiserNetwork
    from bayesmeta.diffusion.denoising.grid_denoiser import GridDenoiser
    from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
    from bayesmeta.diffusion.sampling.tempering import TemperedWarning
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "DenoiserNetwork": "denoising.denoiser",
            "DiffusionSchedule": "denoising.learning",
            "GridDenoiser": "denoising.grid_denoiser",
            "TemperedWarning": "sampling.tempering",
        },
    )
