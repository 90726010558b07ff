"""Networks as fields of a prior: weights by name, and the module of torch that they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from bayesmeta.fields import TensorFields
from bayesmeta.random import seeded

__all__ = ["Weights"]

W = TypeVar("W", bound="Weights")


@dataclass(frozen=True, eq=False)
class Weights(TensorFields):
    """A network: subclasses have its sizes as further fields, and say by `build` which module these make.

    Args:
        weights: of the module, by its names of them.

    Raises:
        ValueError: the module has other weights, or of other shapes.
    """

    weights: dict[str, Tensor]

    def __post_init__(self) -> None:
        expected = {name: tuple(value.shape) for name, value in _on_meta(self).state_dict().items()}
        got = {name: tuple(value.shape) for name, value in self.weights.items()}
        for name in sorted(expected.keys() ^ got.keys()):
            raise ValueError(f"these are weights of another network: {name!r} is in one of them alone")
        for name, shape in expected.items():
            if got[name] != shape:
                raise ValueError(f"these are weights of another network: {name!r} must have {shape}; got {got[name]}")

    @classmethod
    def initial(cls: type[W], *, generator: Generator | None = None, **sizes: Any) -> W:
        """A network of these sizes with the weights that torch draws for it; None draws the same ones each time."""
        blank = object.__new__(cls)
        for field in fields(cls):
            if field.name != "weights":
                object.__setattr__(blank, field.name, sizes.get(field.name, field.default))
        with seeded(generator or Generator().manual_seed(0)):  # torch draws weights from its global stream
            drawn = blank.build().state_dict()
        return cls({name: value.detach() for name, value in drawn.items()}, **sizes)

    def build(self) -> nn.Module:
        """A module with the sizes of this network, and any weights."""
        raise TypeError("each network says what it is made of")

    @cached_property
    def module(self) -> Any:
        """The module with these weights, which has no gradients of them."""
        module = _on_meta(self)
        module.load_state_dict(self.weights, assign=True)
        return module.eval().requires_grad_(False)

    def at(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """What the network would answer with other weights, with gradients of these."""
        return torch.func.functional_call(self.module, dict(weights), inputs)

    def with_weights(self: W, weights: Mapping[str, Tensor]) -> W:
        """The same network with other weights, of the same names and shapes."""
        return self._replace(weights=dict(weights))

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.weights.values())).dtype

    @property
    def device(self) -> torch.device:
        return next(iter(self.weights.values())).device


def _on_meta(network: Weights) -> nn.Module:
    with torch.device("meta"):
        return network.build()
