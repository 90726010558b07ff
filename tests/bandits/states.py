"""All of a policy, to compare before and after."""

import copy
from typing import Any

import torch
from torch import Tensor

import bayesmeta
from bandits.decisions.policy import Policy

__all__ = ["same", "snapshot"]


def snapshot(policy: Policy) -> Any:
    return copy.deepcopy(policy.state().state_dict())


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, bayesmeta.fields.TensorFields):
        return same(a.state_dict(), b.state_dict())
    return bool(a == b)
