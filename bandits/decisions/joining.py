"""Arms that come and go where each has a posterior of its own: batches cut and joined along their last axis."""

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor

from bandits.beliefs.wrapped import Wrapped
from bayesmeta.protocol import Expandable

__all__ = ["joined_state", "prior_of_some", "prior_with_another"]

J = TypeVar("J", bound=Expandable)


def prior_of_some(prior: J, positions: list[int]) -> J:
    """The prior of the arms at `positions`, which may name one twice.

    Args:
        prior: of all arms: without a batch, or with arms as the last axis of it.
    """
    if not prior.batch_shape:
        return prior
    return prior[(slice(None),) * (len(prior.batch_shape) - 1) + (torch.tensor(positions),)]


def prior_with_another(prior: J, num_arms: int, new: J | None) -> tuple[J, J]:
    """The prior of all arms and of one that comes, and of that one alone.

    Args:
        prior: of the `num_arms` before, as of `prior_of_some`.
        new: the prior of the arm that comes, without a batch; None for the same as the others.

    Raises:
        ValueError: priors differ between arms, and the new one has none; or it is of another family.
    """
    if isinstance(prior, Wrapped) and new is not None and not isinstance(new, Wrapped):
        new = prior.around(new)
    if new is not None:
        _require_alike(prior, new)
    if not prior.batch_shape:
        return (prior, prior) if new is None else (_concatenated(prior.expand((num_arms,)), new.expand((1,))), new)
    if new is None:
        raise ValueError("arms have priors that differ: give one of the new arm")
    fitting = new.expand((*prior.batch_shape[:-1], 1))
    return _concatenated(prior, fitting), fitting


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


def _require_alike(prior: Any, new: Any) -> None:
    """Raises a ValueError unless the new arm's prior is of the family of the others."""
    if type(prior) is not type(new):
        raise ValueError(
            f"the new arm's prior must be a {type(prior).__name__}, as the others are; got a {type(new).__name__}"
        )
    if isinstance(prior, Wrapped):
        _require_alike(prior.prior, new.prior)


def _concatenated(a: J, b: J) -> J:
    axis = len(a.batch_shape) - 1
    if isinstance(a, Wrapped) and isinstance(b, Wrapped):
        return a.around(_concatenated(a.prior, b.prior))
    first: Any = a
    pairs = ((field.name, getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(first))
    joined = {name: torch.cat([one, two.to(one)], axis) for name, one, two in pairs if isinstance(one, Tensor)}
    both: J = first._replace(**joined)
    return both
