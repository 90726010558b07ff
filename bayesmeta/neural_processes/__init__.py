"""Neural processes: networks that answer with a predictive distribution after one pass over the rows of a task.

The members are `ConditionalNeuralProcess`, `LatentNeuralProcess`, `AttentiveNeuralProcess` and
`TransformerNeuralProcess`, in `bayesmeta`. Here are the heads that they may have, how they learn, and what they learn
from.
"""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "FLOOR",
    "Augmentation",
    "BernoulliHead",
    "CategoricalHead",
    "CountHead",
    "FunctionDraws",
    "GaussianHead",
    "Head",
    "HistogramHead",
    "KnowsMoments",
    "MixtureHead",
    "Moments",
    "PriorTasks",
    "RealHead",
    "Schedule",
    "StudentHead",
    "TaskStream",
]

if TYPE_CHECKING:
    from bayesmeta.neural_processes.augmentation import Augmentation
    from bayesmeta.neural_processes.episodes import KnowsMoments, Moments, PriorTasks, TaskStream
    from bayesmeta.neural_processes.function_draws import FunctionDraws
    from bayesmeta.neural_processes.heads import (
        FLOOR,
        BernoulliHead,
        CategoricalHead,
        CountHead,
        GaussianHead,
        Head,
        HistogramHead,
        MixtureHead,
        RealHead,
        StudentHead,
    )
    from bayesmeta.neural_processes.learning import Schedule
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Augmentation": "augmentation",
            "FLOOR": "heads",
            "BernoulliHead": "heads",
            "CategoricalHead": "heads",
            "CountHead": "heads",
            "FunctionDraws": "function_draws",
            "GaussianHead": "heads",
            "Head": "heads",
            "HistogramHead": "heads",
            "KnowsMoments": "episodes",
            "MixtureHead": "heads",
            "Moments": "episodes",
            "RealHead": "heads",
            "PriorTasks": "episodes",
            "Schedule": "learning",
            "StudentHead": "heads",
            "TaskStream": "episodes",
        },
    )
