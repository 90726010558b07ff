r"""SOAP: Adam in the eigenbases of Shampoo.

Of a matrix of weights with gradient G, running means of $G G^\top$ and $G^\top G$ are kept, and every few steps their
eigenvectors are brought up to date. Adam then runs in these bases, in which the entries of a gradient are next to
uncorrelated, so that a rate for each entry is nearly a rate for each direction. Vectors, and sides of more than
`MOST_SIDE`, keep their own basis, as under Adam.

Matrices of one shape take each step together.

Source: Vyas et al., SOAP: improving and stabilizing Shampoo using Adam (2024), algorithm 3; without its sorting of
eigenvectors, and with a first step that is like all others.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Soap"]

MOST_SIDE = 256  # of a matrix, that gets a basis of its own
INTERVAL = 10  # steps between bases
EPSILON = 1e-8


class Soap(torch.optim.Optimizer):
    """Steps against gradients.

    Args:
        params: groups as of `torch.optim.AdamW`, each with its `lr`.
        betas: weights of the past in running means of gradients, and of their products.
        weight_decay: of weights, per unit of the rate.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each parameter that has a gradient."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for group in self.param_groups:
            settings = group["lr"], group["betas"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    key = (parameter.shape, parameter.dtype, parameter.device, *settings)
                    alike.setdefault(key, []).append(parameter)
        for (*_, rate, betas, decay), parameters in alike.items():
            self._move(parameters, rate, betas, decay)

    def _move(self, parameters: list[Tensor], rate: float, betas: tuple[float, float], decay: float) -> None:
        """Parameters of one shape; their state is stacked and kept with the first of them."""
        gradient = torch.stack([parameter.grad for parameter in parameters if parameter.grad is not None])
        state = self.state[parameters[0]]
        if not state:
            state |= _start(gradient)
        state["step"] += 1
        num = float(state["step"])
        for side, product in _products(gradient):
            if side in state:
                state[side].lerp_(product, 1.0 - betas[1])
        turned = _turned(gradient, state)
        state["mean"].lerp_(turned, 1.0 - betas[0])
        state["square"].lerp_(turned.square(), 1.0 - betas[1])
        spread = (state["square"] / (1.0 - betas[1] ** num)).sqrt() + EPSILON
        most = _most(betas)
        move = _back((state["mean"] / ((1.0 - betas[0] ** num) * spread)).clamp(-most, most), state)
        for parameter, each in zip(parameters, move, strict=True):
            parameter.mul_(1.0 - rate * decay).sub_(each, alpha=rate)
        if num % INTERVAL == 0:
            _turn_bases(state)


def _most(betas: tuple[float, float]) -> float:
    """The longest that a mean gradient can be, in roots of mean squares, while a basis stays.

    By the inequality of Cauchy and Schwarz; one where both betas are the same. Squares stay behind where a basis is
    turned, and a gradient that was in none of the old directions would be divided by next to nothing.
    """
    ratio = betas[0] ** 2 / betas[1]
    return (1.0 - betas[0]) / math.sqrt((1.0 - betas[1]) * (1.0 - ratio)) if ratio < 1.0 else math.inf


def _products(gradient: Tensor) -> tuple[tuple[str, Tensor], ...]:
    """Of stacked matrices with themselves."""
    if gradient.ndim != 3:
        return ()
    return ("left", gradient @ gradient.mT), ("right", gradient.mT @ gradient)


def _start(gradient: Tensor) -> dict[str, Tensor]:
    state = {"step": torch.zeros(()), "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    for side, product in _products(gradient):
        if product.shape[-1] <= MOST_SIDE:
            state |= {side: product, f"{side}_basis": torch.linalg.eigh(product)[1].contiguous()}
    return state


def _turn_bases(state: dict[str, Tensor]) -> None:
    """A step of the power method; the mean gradient goes along."""
    mean = _back(state["mean"], state)
    for side in ("left", "right"):
        if side in state:  # laid out as a checkpoint lays it out
            state[f"{side}_basis"] = torch.linalg.qr(state[side] @ state[f"{side}_basis"])[0].contiguous()
    state["mean"] = _turned(mean, state).contiguous()


def _turned(matrices: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Into the eigenbases."""
    if "left_basis" in state:
        matrices = state["left_basis"].mT @ matrices
    return matrices @ state["right_basis"] if "right_basis" in state else matrices


def _back(matrices: Tensor, state: dict[str, Tensor]) -> Tensor:
    if "left_basis" in state:
        matrices = state["left_basis"] @ matrices
    return matrices @ state["right_basis"].mT if "right_basis" in state else matrices
