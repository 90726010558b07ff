"""Distributions of many draws and data sets at once, from one that was made for a single draw of a single data set.

Under `torch.func.vmap` a model makes its distributions once; the tensors inside come out with the axes of draws and
data sets in front, and are put into a copy.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

__all__ = ["inner_tensors", "lifted"]


def inner_tensors(fn: Distribution) -> list[Tensor]:
    """The tensors in a distribution and in what it is made of, each with as many axes as it needs to broadcast."""
    found: list[Tensor] = []
    _walk(fn, found, None)
    return found


def lifted(fn: Distribution, tensors: Sequence[Tensor], lead: Sequence[int]) -> Any:
    """A copy of `fn` with other tensors in it.

    Args:
        tensors: in the order of `inner_tensors`, each with the axes `lead` in front.
        lead: axes that the batch of `fn` gets in front.
    """
    return _walk(fn, [], (list(tensors), torch.Size(lead)))


MATRICES = {"_unbroadcasted_scale_tril": 2, "_unbroadcasted_cov_factor": 2, "_unbroadcasted_cov_diag": 1}


@dataclass(frozen=True)
class _Around:
    """The distribution around a tensor: its batch, and how many axes a value of it has."""

    batch: tuple[int, ...] = ()
    rank: int = 0

    def aligned(self, name: str, value: Tensor) -> Tensor:
        """`value` with axes of length one where it would be broadcast."""
        axes = self.rank
        if name in MATRICES:  # of normal vectors; they may lack the batch
            axes = len(self.batch) + MATRICES[name]
        elif value.shape[: len(self.batch)] == self.batch:
            axes = value.ndim
        return value.reshape((*[1] * max(0, axes - value.ndim), *value.shape))


def _walk(
    value: Any,
    found: list[Tensor],
    put: tuple[list[Tensor], torch.Size] | None,
    around: _Around = _Around(),
    name: str = "",
) -> Any:
    """Gather the tensors of `value` into `found`, or give a copy in which they are those of `put`, in this order."""
    if isinstance(value, Tensor):
        if put is not None:
            return put[0].pop(0)
        found.append(around.aligned(name, value))
        return value
    if isinstance(value, list | tuple):
        if not any(isinstance(item, Tensor | Distribution | Transform) for item in value):
            return value
        return type(value)([_walk(item, found, put, around) for item in value])
    if isinstance(value, Distribution):
        around = _Around(tuple(value.batch_shape), len(value.batch_shape) + len(value.event_shape))
    elif not isinstance(value, Transform):
        return value
    # Pyro lets a transform and its inverse hold each other: what is inside an inverse is its other side alone
    inside = {key: item for key, item in vars(value).items() if key != "_inv"}
    if isinstance(value, Transform) and type(value).__name__ == "_InverseTransform":
        forward = _walk(value.inv, found, put, around)
        return forward.inv if put is not None else value
    changed = {key: _walk(item, found, put, around, key) for key, item in inside.items()}
    if put is None:
        return value
    new = copy.copy(value)
    vars(new).update(changed)
    if isinstance(new, Transform):
        new._inv = None  # that of the old one
    if isinstance(new, Distribution):
        new._batch_shape = torch.Size((*put[1], *value.batch_shape))
    return new
