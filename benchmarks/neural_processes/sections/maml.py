"""MAML: a network that is good after one gradient step on the rows of a task.

Gradients go through the step (second order). Sizes and rates are the source's: two hidden layers of 40, a step of .01,
25 tasks a time, Adam with a rate of .001.

Source: Finn, Abbeel and Levine, Model-agnostic meta-learning for fast adaptation of deep networks (2017), section 5.1.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap

from bayesmeta import Data

__all__ = ["Maml"]

HIDDEN, RATE, NUM_TASKS, META_RATE = 40, 0.01, 25, 1e-3
Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class Maml:
    """Weights and biases, in turn, from which steps on a task start."""

    weights: Weights

    @classmethod
    def initial(cls, generator: Generator, num_inputs: int = 1) -> "Maml":
        weights: list[Tensor] = []  # small enough for steps on any task to go downhill
        for size, width in ((num_inputs, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)):
            weights += [
                torch.randn(size, width, generator=generator) * math.sqrt(1.0 / (3.0 * size)),
                torch.zeros(width),
            ]
        return cls(tuple(weights))

    def fit(self, stream: Any, num_steps: int, *, num_known: int, generator: Generator) -> "Maml":
        """Learn from tasks of a stream, of which as many rows are known as are asked about."""
        weights = [weight.clone().requires_grad_() for weight in self.weights]
        ascent = torch.optim.Adam(weights, META_RATE)
        for _ in range(num_steps):
            tasks = stream.draw(NUM_TASKS, 2 * num_known, generator=generator).to(torch.float32)
            known, asked = tasks.rows(slice(0, num_known)), tasks.rows(slice(num_known, None))
            predicted = _predicted(tuple(weights), known, asked.x, steps=1)
            ascent.zero_grad()
            (predicted - asked.y).square().mean().backward()
            ascent.step()
        return Maml(tuple(weight.detach() for weight in weights))

    def predict(self, known: Data, x: Tensor, *, steps: int) -> Tensor:
        """Means `(tasks, rows)` after so many gradient steps on known rows, in the dtype of x."""
        return _predicted(self.weights, known.to(torch.float32), x.float(), steps=steps).to(x)


def _predicted(weights: Weights, known: Data, x: Tensor, *, steps: int) -> Tensor:
    def of_task(known_x: Tensor, known_y: Tensor, asked_x: Tensor) -> Tensor:
        adapted = weights
        for _ in range(steps):
            slopes = grad(_error)(adapted, known_x, known_y)
            adapted = tuple(weight - RATE * slope for weight, slope in zip(adapted, slopes, strict=True))
        return _network(adapted, asked_x)

    return vmap(of_task)(known.x, known.y, x)


def _error(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    return (_network(weights, x) - y).square().mean()


def _network(weights: Weights, x: Tensor) -> Tensor:
    first, first_bias, second, second_bias, last, last_bias = weights
    hidden = torch.relu(torch.relu(x @ first + first_bias) @ second + second_bias)
    return (hidden @ last + last_bias)[..., 0]
