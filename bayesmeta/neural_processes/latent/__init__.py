"""Members that know of a task one vector z, by a normal distribution, and for which rows are independent given z."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "AttentiveNetwork",
    "AttentiveNeuralProcess",
    "LatentFunctions",
    "LatentNetwork",
    "LatentNeuralProcess",
]

if TYPE_CHECKING:
    from bayesmeta.neural_processes.latent.attentive import AttentiveNetwork, AttentiveNeuralProcess
    from bayesmeta.neural_processes.latent.plain import LatentNetwork, LatentNeuralProcess
    from bayesmeta.neural_processes.latent.vector import LatentFunctions
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "AttentiveNetwork": "attentive",
            "AttentiveNeuralProcess": "attentive",
            "LatentFunctions": "vector",
            "LatentNetwork": "plain",
            "LatentNeuralProcess": "plain",
        },
    )
