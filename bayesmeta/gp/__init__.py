"""Gaussian processes that are learned from past tasks."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "NUM_DOUBTING",
    "GaussianProcess",
    "PastFunctions",
    "PathFunctions",
    "TransferHypotheses",
    "likeness",
    "transfer_hypotheses",
    "trust",
    "trusting",
]

if TYPE_CHECKING:
    from bayesmeta.gp.past_functions import PastFunctions
    from bayesmeta.gp.paths import PathFunctions
    from bayesmeta.gp.process import GaussianProcess
    from bayesmeta.gp.transfer import NUM_DOUBTING, TransferHypotheses, likeness, transfer_hypotheses, trust, trusting
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "NUM_DOUBTING": "transfer",
            "GaussianProcess": "process",
            "PastFunctions": "past_functions",
            "PathFunctions": "paths",
            "TransferHypotheses": "transfer",
            "likeness": "transfer",
            "transfer_hypotheses": "transfer",
            "trust": "transfer",
            "trusting": "transfer",
        },
    )
