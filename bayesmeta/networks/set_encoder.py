"""Sets of rows as sums: an encoding of each row, added over rows.

What is added does not know the order, and a further row costs that row. A network that reads the sum is told how many
rows there were beside their mean encoding, since a mean alone cannot tell one row from a hundred.

Source: Zaheer et al., Deep sets (2017), theorem 2.
"""

import torch
from torch import Tensor, nn

from bayesmeta.networks.perceptron import ResidualPerceptron

__all__ = ["SetEncoder", "summary"]


class SetEncoder(nn.Module):
    """Encodings of rows.

    Args:
        num_inputs: of a row, inputs and outputs together.
        width: of the encoding, and of the perceptron's stream.
        num_layers: of the perceptron.
    """

    def __init__(self, num_inputs: int, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.perceptron = ResidualPerceptron(num_inputs, width, width=width, num_layers=num_layers)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows `(..., n, num_inputs)` to encodings `(..., n, width)`, zero where `mask` is false."""
        return self.perceptron(rows) * mask[..., None]


def summary(total: Tensor, count: Tensor) -> Tensor:
    """What networks read of a sum of encodings `(..., width)` and a count `(...)`: `(..., width + 1)`."""
    mean = total / (count[..., None] + 1.0)
    return torch.cat([mean, torch.log1p(count)[..., None]], -1)
