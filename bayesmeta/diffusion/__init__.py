"""Diffusion priors: `DiffusionPrior`, in `bayesmeta`, and here what it is made of and how it learns."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["DenoiserNetwork", "DiffusionSchedule", "GridDenoiser", "KnowsTheta", "TemperedWarning"]

if TYPE_CHECKING:
    from bayesmeta.diffusion.denoising.denoiser import DenoiserNetwork
    from bayesmeta.diffusion.denoising.grids.grid_denoiser import GridDenoiser
    from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
    from bayesmeta.diffusion.sampling.tempering import TemperedWarning
    from bayesmeta.diffusion.streamed_tasks import KnowsTheta
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "DenoiserNetwork": "denoising.denoiser",
            "DiffusionSchedule": "denoising.learning",
            "GridDenoiser": "denoising.grids.grid_denoiser",
            "KnowsTheta": "streamed_tasks",
            "TemperedWarning": "sampling.tempering",
        },
    )
