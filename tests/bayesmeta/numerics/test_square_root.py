"""Roots of a covariance as rows are seen, against the covariance itself."""

import torch

from bayesmeta.numerics.square_root import after_rows, potter, potter_
from bayesmeta.random import rand, randn
from tests.families import F64, seed


def test_one_row_in_place_or_not_and_as_one_of_many() -> None:
    root, x = (randn((3, 4, n), like=F64, generator=seed(n)) for n in (4, 1))
    noise_var = 0.1 + rand((3,), like=F64, generator=seed(9))
    f = (root.mT @ x)[..., 0]
    cov = root @ root.mT
    expected = cov - cov @ x @ x.mT @ cov / (noise_var[:, None, None] + x.mT @ cov @ x)
    gain, moved = potter(root, f, noise_var)
    torch.testing.assert_close(moved @ moved.mT, expected)
    torch.testing.assert_close(gain, (cov @ x / (noise_var[:, None, None] + x.mT @ cov @ x))[..., 0])
    own = root.clone()
    torch.testing.assert_close(potter_(own, f, noise_var), gain)
    torch.testing.assert_close(own, moved)
    many = after_rows(torch.zeros_like(gain), root, f[:, None], torch.ones_like(noise_var)[:, None], noise_var)
    torch.testing.assert_close(many[1] @ many[1].mT, expected)
    torch.testing.assert_close(many[0], gain)
