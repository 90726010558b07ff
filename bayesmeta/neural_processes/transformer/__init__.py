"""Members that attend from what is asked to the rows of a task."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["CausalTransformerNeuralProcess", "TransformerNetwork", "TransformerNeuralProcess"]

if TYPE_CHECKING:
    from bayesmeta.neural_processes.transformer.causal import CausalTransformerNeuralProcess
    from bayesmeta.neural_processes.transformer.network import TransformerNetwork
    from bayesmeta.neural_processes.transformer.plain import TransformerNeuralProcess
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "CausalTransformerNeuralProcess": "causal",
            "TransformerNetwork": "network",
            "TransformerNeuralProcess": "plain",
        },
    )
