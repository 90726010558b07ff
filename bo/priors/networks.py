"""Neural processes as priors for tuning: they learn from simulated objectives first, and then from past tasks.

Past studies are few for a network. Simulated ones teach it what objectives are like anywhere, and past ones, scaled and
shifted each time, what is particular to these: where values are good, and which columns matter.
"""

from typing import Any

import torch
from torch import Generator

from bayesmeta.data.rows import Data
from bayesmeta.neural_processes import Augmentation, Schedule
from bo.priors.simulated_studies import SimulatedStudies
from bo.space.search_space import SearchSpace

__all__ = ["PAST", "SIMULATED", "learn_network"]

NUM_POINTS = 2048  # of the space, and of past tasks, on which objectives are simulated
SIMULATED = Schedule(num_steps=2500, most_known=32, num_asked=16)
PAST = Schedule(num_steps=1000, most_known=32, num_asked=16, rate=2e-3)
# the rows of a study are scored among themselves, so what their scores are among all rows of the task is not known
AUGMENTATION = Augmentation(log_scale=0.3, shift=0.5)
# small enough for a suggestion in a tenth of a second; inputs count, for optima have places
TRANSFORMER = {
    "knows_stationarity": False,
    "width": 32,
    "num_layers": 3,
    "num_heads": 4,
    "linear_width": 8,
    "hidden": 64,
}


def learn_network(family: Any, space: SearchSpace, scores: Data) -> Any:
    """A neural process that has learned from simulated objectives on a space, and from past tasks.

    Args:
        family: of neural processes.
        space: of the tasks.
        scores: tasks whose targets are normal scores, more being better.
    """
    from bayesmeta.neural_processes.transformer import TransformerNeuralProcess

    generator = Generator().manual_seed(0)
    sizes: dict[str, Any] = TRANSFORMER if issubclass(family, TransformerNeuralProcess) else {}
    start = family.initial(scores, generator=generator, **sizes).to(torch.float32)
    past = scores.x[scores.mask]
    chosen = past[torch.randperm(len(past), generator=generator)[:NUM_POINTS]]
    points = torch.cat([space.sobol(NUM_POINTS, generator=generator).to(past), chosen])
    simulated = start.fit(SimulatedStudies(points), schedule=SIMULATED, generator=generator)
    return simulated.fit(scores, schedule=PAST, augmentation=AUGMENTATION, generator=generator)
