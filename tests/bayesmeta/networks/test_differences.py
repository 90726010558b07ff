"""What attention may know of where rows lie: functions of differences, and waves whose products are of differences."""

import torch

from bayesmeta.networks.differences import NUM_DISTANCES, distance_functions, first_frequencies, waves
from bayesmeta.random import rand, randn
from tests.families import F64, seed


def test_functions_of_distance_depend_on_differences_alone_and_tell_both_sides_apart() -> None:
    a, b = rand((1, 4, 2), like=F64, generator=seed(1)), rand((1, 3, 2), like=F64, generator=seed(2))
    found = distance_functions(a, b)
    assert found.shape == (1, 4, 2 * NUM_DISTANCES, 3)
    torch.testing.assert_close(distance_functions(a + 7.0, b + 7.0), found, rtol=1e-9, atol=1e-9)
    back = distance_functions(b, a).transpose(1, 3)
    odd = (back + found).abs().amax((0, 1, 3)) < 1e-12
    even = (back - found).abs().amax((0, 1, 3)) < 1e-12
    assert (odd | even).all()
    assert odd.any()
    assert even.any()
    same = distance_functions(a, a)[0, 0, :, 0]
    assert set(same.tolist()) == {0.0, 1.0}, "at no distance bumps are one and all else is zero"


def test_products_of_waves_are_waves_of_differences() -> None:
    a, b = randn((2, 4, 3), like=F64, generator=seed(3)), randn((2, 5, 3), like=F64, generator=seed(4))
    frequencies = torch.tensor([0.5, 4.0], dtype=torch.float64)
    found = waves(a, frequencies)
    assert found.shape == (2, 4, 12)
    expected = (frequencies * (a[:, :, None] - b[:, None])[..., None]).cos().sum((-2, -1))
    torch.testing.assert_close(found @ waves(b, frequencies).mT, expected, rtol=1e-10, atol=1e-10)


def test_first_frequencies_are_even_on_the_scale_of_logarithms() -> None:
    found = first_frequencies(8)
    torch.testing.assert_close(found[1:] / found[:-1], torch.full((7,), 25.0 ** (1 / 7)))
    assert len(first_frequencies(0)) == 0
