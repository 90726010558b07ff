"""Roles of columns: which weight is whose, and what is refused."""

import pytest
import torch

from bayesmeta import Columns, Data, LinearGaussian, LinearNormalInverseGamma, load, save
from bayesmeta.random import rand, randn
from tests.families import F64, seed


def rows(n: int = 6, columns: int = 4) -> Data:
    g = seed(0)
    return Data.of(rand((3, n, columns), like=F64, generator=g), randn((3, n), like=F64, generator=g))


def test_weights_belong_to_the_columns_without_another_role() -> None:
    columns = Columns(6, shared=(4, 1), offset=0, weight=-1)
    assert columns.inputs == (1, 2, 3, 4)
    assert columns.varying == (1, 2)
    assert columns.fixed == (0, 3)
    assert columns.weight == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared": (4,)}, "x has 4 columns, numbered from 0 to 3; got column 4"),
        ({"shared": (1,), "offset": 1}, "column 1 of x has two roles"),
        ({"shared": (1, 1)}, "column 1 of x has two roles"),
        ({"shared": (0, 1, 2, 3)}, "must have a weight that varies between tasks"),
        ({"weight": 0, "noise_var": 1}, "a weight or a known variance of its noise, and not both"),
    ],
)
def test_roles_that_contradict_each_other_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearGaussian.initial(rows(), **arguments)


def test_a_family_refuses_roles_that_it_does_not_know() -> None:
    loc, precision = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="LinearGaussian knows no column of role 'trials'"):
        LinearGaussian(loc, precision, F64 + 1.0, columns=Columns(4, trials=3))
    with pytest.raises(ValueError, match="columns must have 3 inputs, one per entry of loc; got 4"):
        LinearGaussian(loc, precision, F64 + 1.0, columns=Columns(4, shared=(1,)))
    with pytest.raises(ValueError, match="LinearNormalInverseGamma knows no column of role 'noise_var'"):
        LinearNormalInverseGamma(loc, precision, F64 + 1.0, F64 + 1.0, columns=Columns(4, noise_var=3))


def test_rows_without_all_columns_are_refused() -> None:
    prior = LinearGaussian.initial(rows(), offset=3)
    for call in (prior.predict, prior.sample(2, generator=seed(1))):
        with pytest.raises(ValueError, match="x must have 4 columns; got 3"):
            call(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="x must have 4 columns; got 3"):
        prior.condition(Data.of(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)))


def test_weights_of_rows_are_above_zero() -> None:
    data = rows()
    data.x[1, 2, 3] = 0.0
    with pytest.raises(ValueError, match="must be above zero where mask is true; 1 row is not, it is in task 1, row 2"):
        LinearGaussian.initial(data, weight=3)


def test_roles_are_saved(tmp_path) -> None:
    prior = LinearGaussian.initial(rows(), shared=(1,), offset=0, noise_var=3)
    save(prior, tmp_path / "prior.safetensors")
    assert load(tmp_path / "prior.safetensors").columns == prior.columns


def test_roles_are_shown() -> None:
    prior = LinearGaussian.initial(rows(), shared=(1,), noise_var=3)
    assert repr(prior.columns) == "Columns: varying 0, 2; shared 1; noise_var 3"
    assert "Columns: varying 0, 2; shared 1; noise_var 3" in repr(prior)
