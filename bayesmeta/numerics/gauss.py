"""Gauss rules for weight functions that NumPy has no rule for.

Source: Gautschi, Orthogonal polynomials (2004), section 2.2.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["half_normal_rule"]


@cache
def half_normal_rule(num: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on the positive half line, for the weight function exp(-s^2 / 2).

    By Stieltjes' procedure on a fine discrete measure: nodes are eigenvalues of the Jacobi matrix, weights the
    numbers of Christoffel, which keep their digits where they are next to nothing.
    """
    at, measure = np.polynomial.legendre.leggauss(400)
    s, measure = 10.0 * (at + 1.0), 10.0 * measure * np.exp(-50.0 * (at + 1.0) ** 2)
    before, now = np.zeros_like(s), np.full_like(s, measure.sum() ** -0.5)
    centres, ratios = [], [0.0]
    for _ in range(num):
        centres.append((measure * s * now**2).sum())
        rest = (s - centres[-1]) * now - ratios[-1] * before
        ratios.append(float(np.sqrt((measure * rest**2).sum())))
        before, now = now, rest / ratios[-1]
    nodes = np.linalg.eigvalsh(np.diag(centres) + np.diag(ratios[1:num], 1) + np.diag(ratios[1:num], -1))
    before, now = np.zeros(num), np.full(num, measure.sum() ** -0.5)
    total = np.zeros(num)
    for k in range(num):
        total += now**2
        before, now = now, ((nodes - centres[k]) * now - ratios[k] * before) / ratios[k + 1]
    return torch.from_numpy(nodes), torch.from_numpy(1.0 / total)
