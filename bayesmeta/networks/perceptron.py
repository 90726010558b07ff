"""Residual perceptrons: layers that each add to what passes."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from bayesmeta.doors import require_count

__all__ = ["ResidualPerceptron", "zeroed"]


class ResidualPerceptron(nn.Module):
    """From `num_inputs` to `num_outputs` by a stream of one width, to which each hidden layer adds.

    Args:
        num_inputs, num_outputs: last axes of what comes and goes.
        width: of the stream, and of what each layer makes of it.
        num_layers: hidden ones, at least one.

    Raises:
        ValueError: `width` or `num_layers` is below one.

    Source: He et al., Identity mappings in deep residual networks (2016), with layer norm before each layer.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, width: int, num_layers: int) -> None:
        super().__init__()
        width, num_layers = require_count("width", width), require_count("num_layers", num_layers)
        self.first = nn.Linear(num_inputs, width)
        self.layers = nn.ModuleList(PerceptronLayer(width, width) for _ in range(num_layers))
        self.last = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(self.first(x)))

    def hidden(self, stream: Tensor) -> Tensor:
        """What the last layer is given, from what the first one gives."""
        for layer in self.layers:
            stream = layer(stream)
        return gelu(stream)


class PerceptronLayer(nn.Module):
    """A stream plus what one hidden layer makes of it, which at first is nothing."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, hidden)
        self.out = zeroed(nn.Linear(hidden, width))

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.out(gelu(self.into(self.norm(stream))))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all its weights at zero."""
    with torch.no_grad():
        for value in layer.parameters():
            value.zero_()
    return layer
