"""Neural processes as priors of bandits: what they learned of past tasks makes new ones cost less."""

import pytest
import torch
from torch import Generator, Tensor

import bandits
from bayesmeta import ConditionalNeuralProcess, Data, TransformerNeuralProcess
from bayesmeta.neural_processes import Schedule
from bayesmeta.random import rand, randn
from tests.families import F64
from tests.seeds import seed, shifted

ARMS = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)  # a feature of each


def reward(context: Tensor, feature: Tensor, slope: Tensor) -> Tensor:
    """A task says whether a context wants an arm like itself or the opposite one."""
    return -slope * (context - feature).square()


class PastTasks:
    """Rows of a context and the feature of an arm."""

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        x = rand((num_tasks, num_rows, 2), like=F64, generator=generator)
        x[..., 1] = (2.0 * x[..., 1]).round() / 2.0
        slope = 2.0 * (rand((num_tasks, 1), like=F64, generator=generator) < 0.5).double() - 1.0
        noise = 0.1 * randn((num_tasks, num_rows), like=F64, generator=generator)
        return Data.of(x, reward(x[..., 0], x[..., 1], slope) + noise)


def regret(prior: object) -> float:
    """Mean of 20 decisions in 40 new tasks."""
    generator = seed(3)
    slope = 2.0 * (rand((40, 1), like=F64, generator=generator) < 0.5).double() - 1.0
    policy = bandits.ThompsonSampling(
        prior, bandits.Joined(("left", "middle", "right"), ARMS), tasks=40, seed=shifted(0), propensities=False
    )
    total = torch.zeros(40, dtype=torch.float64)
    for _ in range(20):
        context = rand((40, 1), like=F64, generator=generator)
        values = reward(context, ARMS[:, 0], slope)
        choices = policy.choose(context)
        taken = values[torch.arange(40), choices.arm]
        total += values.amax(-1) - taken
        policy.update(choices, taken + 0.1 * randn((40,), like=F64, generator=generator))
    return float(total.mean() / 20)


@pytest.mark.parametrize("family", [ConditionalNeuralProcess, TransformerNeuralProcess])
def test_what_past_tasks_taught_lowers_the_regret(family: type) -> None:
    sizes = {"width": 24, "num_layers": 2}
    if family is TransformerNeuralProcess:
        sizes |= {"num_heads": 2, "linear_width": 8, "hidden": 24, "knows_stationarity": False}
    start = family.initial(PastTasks().draw(50, 20, generator=seed(1)), **sizes)
    schedule = Schedule(400, num_tasks=16, most_known=16, num_asked=12, rate=5e-3, average=0.98)
    prior = start.fit(PastTasks(), schedule=schedule, generator=seed(2), progress=False)
    assert regret(prior) < 0.5 * regret(start)
