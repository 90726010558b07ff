r"""Convolutions on a grid at several resolutions: whatever place they look at, they are the same.

The stream is averaged over pairs of places, again and again, until a kernel covers what is left; then it comes back,
and each resolution adds what the coarser one said of it. Layers add to the stream at each resolution on both ways. So a
place hears of all others, at the cost of a few layers at the resolution of the grid.

Edges of the grid are zeros beside it. Kernels are kept as matrices, from a patch of the grid to the channels of its
centre, so that steps by SOAP are taken in their eigenbases.

Source: Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation (2015), for both ways; and
the layers of `bayesmeta.networks.perceptron`, with convolutions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, gelu, interpolate

from bayesmeta.doors import require_count
from bayesmeta.networks.perceptron import zeroed

__all__ = ["Pyramid"]

KERNEL = 3  # places along each side


class Pyramid(nn.Module):
    """From `num_inputs` channels on a grid to `num_outputs`, which at first are zero.

    Args:
        sides: of the grid, two of them.
        width: channels of the stream.
        num_layers: at each resolution, on each way.
        num_said: numbers that every layer is told beside.

    Raises:
        ValueError: `width` or `num_layers` is below one.
    """

    def __init__(
        self, num_inputs: int, num_outputs: int, sides: tuple[int, int], *, width: int, num_layers: int, num_said: int
    ) -> None:
        super().__init__()
        width, num_layers = require_count("width", width), require_count("num_layers", num_layers)
        kernel = tuple(KERNEL if side > 1 else 1 for side in sides)
        self.sides = _resolutions(sides)
        self.first = Convolution(num_inputs, width, kernel)
        self.down = nn.ModuleList(Layers(num_layers, width, kernel, num_said) for _ in self.sides[:-1])
        self.up = nn.ModuleList(Layers(num_layers, width, kernel, num_said) for _ in self.sides)
        self.last = Convolution(width, num_outputs, (1, 1))
        zeroed(self.last.matrix)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        """x `(n, channels, *sides)` and what layers are told `(n, num_said)`."""
        # with channels innermost a convolution takes a third of the time on a CPU
        stream, finer = self.first(x.contiguous(memory_format=torch.channels_last)), []
        for layers in self.down:
            finer.append(layers(stream, said))
            stream = _halved(finer[-1])
        stream = self.up[0](stream, said)
        for layers in self.up[1:]:
            own = finer.pop()
            stream = layers(own + interpolate(stream, own.shape[-2:]), said)
        return self.last(gelu(stream))


class Layers(nn.Module):
    """At one resolution, one after another."""

    def __init__(self, num: int, width: int, kernel: Sequence[int], num_said: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(ConvolutionLayer(width, kernel, num_said) for _ in range(num))

    def forward(self, stream: Tensor, said: Tensor) -> Tensor:
        for layer in self.each:
            stream = layer(stream, said)
        return stream


class ConvolutionLayer(nn.Module):
    """A stream plus what one hidden layer makes of it, which at first is nothing."""

    def __init__(self, width: int, kernel: Sequence[int], num_said: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.into = Convolution(width, width, kernel)
        self.said = nn.Linear(num_said, width, bias=False)
        self.out = Convolution(width, width, (1, 1))
        zeroed(self.out.matrix)

    def forward(self, stream: Tensor, said: Tensor) -> Tensor:
        hidden = self.into(self.norm(stream)) + self.said(said)[..., None, None]
        return stream + self.out(gelu(hidden))


class Convolution(nn.Module):
    """Of a patch about each place, by a matrix from the patch to channels."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: Sequence[int]) -> None:
        super().__init__()
        self.kernel = (num_inputs, *kernel)
        self.matrix = nn.Linear(num_inputs * kernel[0] * kernel[1], num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.matrix.weight.unflatten(1, self.kernel)
        return conv2d(x, kernel, self.matrix.bias, padding=[side // 2 for side in self.kernel[1:]])


def _resolutions(sides: tuple[int, int]) -> list[tuple[int, int]]:
    """Sides of the grid, and of coarser ones, to the first that a kernel covers."""
    found = [sides]
    while max(found[-1]) > KERNEL:
        a, b = found[-1]
        found.append((-(-a // 2), -(-b // 2)))
    return found


def _halved(stream: Tensor) -> Tensor:
    """Means over pairs of places along each side; a last place without another is its own mean."""
    pairs = [min(2, side) for side in stream.shape[-2:]]
    return avg_pool2d(stream, pairs, ceil_mode=True)
