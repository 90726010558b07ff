"""Arms that come and go where each has a posterior of its own: batches cut and joined along their last axis."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bandits.beliefs.wrapped import Wrapped

__all__ = ["joined_prior", "joined_state"]


def joined_prior(prior: Any, keep: list[int], new: Any, *, adds: bool) -> tuple[Any, Any]:
    """The prior of all arms that stay and of one that comes, and of that one alone.

    Args:
        prior: of all arms before: without a batch, or with arms as the last axis of it.
        keep: positions of those that stay.
        new: the prior of the arm that comes, without a batch; None for the same as the others.
        adds: whether one comes.

    Raises:
        ValueError: priors differ between arms, and the new one has none.
    """
    if isinstance(prior, Wrapped) and new is not None and not isinstance(new, Wrapped):
        new = prior.around(new)
    if not prior.batch_shape:
        if new is None or not adds:
            return prior, prior
        return _concatenated(prior.expand((len(keep),)), new.expand((1,))), new
    ndim = len(prior.batch_shape)
    kept = prior[(slice(None),) * (ndim - 1) + (torch.tensor(keep),)]
    if not adds:
        return kept, None
    if new is None:
        raise ValueError("arms have priors that differ: give one of the new arm")
    fitting = new.expand((*prior.batch_shape[:-1], 1))
    return _concatenated(kept, fitting), fitting


def joined_state(old: Any, keep: Tensor, fresh: Any, *, adds: bool) -> Any:
    """States of `Online`: some arms of `old`, and where one comes, those of `fresh`.

    What `fresh` has no rows for yet, `old` may have: then zeros are what it has. What stands under "whole" is of tasks
    and not of arms, and stays.
    """
    if isinstance(old, dict):
        names = fresh if isinstance(fresh, dict) else {}
        return {
            name: value if name == "whole" else joined_state(value, keep, names.get(name), adds=adds)
            for name, value in old.items()
        }
    if not isinstance(old, Tensor):
        return old
    kept = old[:, keep]
    if not adds:
        return kept
    new = kept.new_zeros(len(kept), 1, *kept.shape[2:]) if fresh is None else _padded(fresh, kept)
    return torch.cat([kept, new], 1)


def _padded(fresh: Tensor, like: Tensor) -> Tensor:
    """`fresh` with the sizes of `like` after the axes of tasks and arms."""
    if fresh.shape[2:] == like.shape[2:]:
        return fresh.to(like)
    wide = like.new_zeros(*fresh.shape[:2], *like.shape[2:])
    wide[tuple(slice(0, size) for size in fresh.shape)] = fresh
    return wide


def _concatenated(a: Any, b: Any) -> Any:
    axis = len(a.batch_shape) - 1
    if isinstance(a, Wrapped):
        return a.around(_concatenated(a.prior, b.prior))
    joined = {
        field.name: torch.cat([getattr(a, field.name), getattr(b, field.name).to(getattr(a, field.name))], axis)
        for field in dataclasses.fields(a)
        if isinstance(getattr(a, field.name), Tensor)
    }
    return a._replace(**joined)
