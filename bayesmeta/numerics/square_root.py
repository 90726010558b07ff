r"""Roots of a covariance, R with R R' = S, as rows are seen: they keep the digits that S itself would lose.

A row x whose output has the noise variance v tells of the weights through f = R'x. What is left of S is

$$ R\,\Bigl(I - \frac{f f^\top}{v + f^\top f}\Bigr) R^\top. $$

Beside rows whose f'f is 10^16 times v, the difference has no digits left in float64, while a root of it has half of
them: it is a product of R and a root of the bracket, which is known in closed form.

`potter` takes one row, `potter_` in place, `after_rows` many at once, by a QR decomposition.

Source: Potter (1963), in Bierman, Factorization Methods for Discrete Sequential Estimation (1977), section II.8.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["after_rows", "potter", "potter_"]

Array = Any  # of torch, or of NumPy, which takes a third of the time for a single row


def potter(root: Array, f: Array, noise_var: Array) -> tuple[Array, Array]:
    """Gain `(*batch, d)` of the mean over what is left of y, and the root `(*batch, d, r)`, after one row.

    Args:
        root: `(*batch, d, r)`.
        f: R'x, `(*batch, r)`.
        noise_var: `(*batch,)`.
    """
    var = (f * f).sum(-1) + noise_var
    gain = (root @ f[..., None])[..., 0] / var[..., None]
    step = gain / (1.0 + (noise_var / var) ** 0.5)[..., None]
    return gain, root - step[..., None] * f[..., None, :]


def potter_(root: Tensor, f: Tensor, noise_var: Tensor) -> Tensor:
    """As `potter`, of one axis of batch: the gain `(b, d)`; `root` becomes that after the row, and no copy is made."""
    var = f.square().sum(-1) + noise_var
    gain = (root @ f[..., None])[..., 0] / var[..., None]
    step = gain / (1.0 + (noise_var / var).sqrt())[..., None]
    root.baddbmm_(step[..., None], f[:, None], alpha=-1.0)
    return gain


def after_rows(loc: Tensor, root: Tensor, f: Tensor, left: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(*batch, d)` and root `(*batch, d, r)` after m rows.

    Args:
        loc, root: before.
        f: R'x of each row, `(*batch, m, r)`; rows of zeros say nothing.
        left: y - x'loc of each, `(*batch, m)`.
        noise_var: `(*batch,)`.
    """
    noise = noise_var.sqrt()[..., None]
    eye = torch.eye(root.shape[-1]).to(root).expand(*root.shape[:-2], -1, -1)
    q, upper = torch.linalg.qr(torch.cat([eye, f / noise[..., None]], -2))
    told = q[..., root.shape[-1] :, :].mT @ (left / noise)[..., None]
    moved = torch.linalg.solve_triangular(upper, told, upper=True)
    return loc + (root @ moved)[..., 0], torch.linalg.solve_triangular(upper, root, upper=True, left=False)
