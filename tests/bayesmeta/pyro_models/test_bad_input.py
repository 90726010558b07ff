"""Models and data that cannot be used: messages name the site, the data set, and the way out."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from bayesmeta import Data, from_pyro
from tests.bayesmeta.pyro_models.models import logistic, noise, normal

X, Y = noise(3, 4, 2), noise(3, 4, number=1)
DATA = {"x": X, "y": Y}


def rows(loc: Any, x: Tensor, y: Tensor | None) -> None:
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def test_no_latent_site() -> None:
    with pytest.raises(ValueError, match=r"no latent site"):
        from_pyro(lambda x, y=None: rows(0.0, x, y)).initial(DATA)


def test_no_observed_site() -> None:
    with pytest.raises(ValueError, match=r"no observed site"):
        from_pyro(lambda x, y=None: pyro.sample("m", dist.Normal(0.0, 1.0))).initial(DATA)


def test_discrete_latent_site() -> None:
    with pytest.raises(ValueError, match=r"site 'which' is latent and discrete.*sum it out"):
        from_pyro(lambda x, y=None: rows(pyro.sample("which", dist.Bernoulli(0.5)), x, y)).initial(DATA)


def test_parameters_without_a_prior() -> None:
    with pytest.raises(ValueError, match=r"pyro.param 'm' has no prior"):
        from_pyro(lambda x, y=None: rows(pyro.param("m", torch.zeros(())), x, y)).initial(DATA)


def test_trace_that_changes() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        runs.append(1)
        rows(m if len(runs) % 2 else pyro.sample("more", dist.Normal(m, 1.0)), x, y)

    runs: list[int] = []
    with pytest.raises(ValueError, match=r"changes between runs: site 'more' is latent"):
        from_pyro(model).initial(DATA)


def test_subsamples_are_refused() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4, subsample_size=2) as index:
            pyro.sample("y", dist.Normal(m, 1.0), obs=y[index])

    with pytest.raises(ValueError, match=r"plate 'rows' takes a subsample"):
        from_pyro(model).initial(DATA)


def test_several_plates_could_hold_the_rows() -> None:
    def model(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("columns", y.shape[-1]), pyro.plate("rows", y.shape[-2]):
            pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"which plate holds the rows"):
        from_pyro(model).initial({"y": X})
    assert from_pyro(model, plate="rows").initial({"y": X}).program.structure.plate is not None
    with pytest.raises(ValueError, match=r"plate 'lines' is not around"):
        from_pyro(model, plate="lines").initial({"y": X})


def test_data_sets_without_rows_give_the_prior() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    prior = from_pyro(normal).initial(Data(X[..., :0], Y, mask))
    posterior = prior.condition(Data(X[..., :0], Y, mask))
    draws = posterior.params["m"][:, :, 1]
    assert abs(float(draws.std()) / 3.0 - 1.0) < 5.0 / (2.0 * float(posterior.draws.ess_bulk[1])) ** 0.5
    nothing = prior.condition(Data.of(None, Y[:, :0]))
    assert nothing.batch_shape == (3,)
    with pytest.raises(ValueError, match=r"at least two tasks with rows"):
        prior.fit(Data(X[..., :0], Y, mask & (torch.arange(3) == 0)[:, None]))


def test_densities_that_are_no_numbers() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        rows(pyro.sample("m", dist.Normal(0.0, 1.0)) * x[..., 0].log(), x, y)

    x = X.abs() + 0.1
    x[2, 1] = -1.0
    with pytest.raises(ValueError, match=r"log_density of task 2 is NaN"):
        from_pyro(model).initial({"x": x, "y": Y}).condition({"x": x, "y": Y})


def test_flat_directions() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        flat = dist.ImproperUniform(dist.constraints.real, (), ())
        rows(pyro.sample("a", dist.Normal(0.0, 1.0)) + pyro.sample("b", flat) * x[..., 0], x, y)

    data = {"x": X.clone(), "y": Y}
    from_pyro(model, num_draws=50).initial(data).condition(data)
    data["x"][1] = 0.0
    with pytest.raises(ValueError, match=r"posterior of task 1 is improper.*site 'b'"):
        from_pyro(model).initial(data).condition(data)


def test_numbers_of_data_sets_that_differ() -> None:
    with pytest.raises(ValueError, match=r"same number of data sets.*x has 3, y has 2"):
        from_pyro(logistic).initial({"x": X, "y": Y[:2]})


def test_arguments_that_the_model_lacks() -> None:
    with pytest.raises(ValueError, match=r"no argument 'z'"):
        from_pyro(logistic).initial({**DATA, "z": Y})
    with pytest.raises(ValueError, match=r"give a mapping"):
        from_pyro(lambda a, b: rows(0.0, a, b)).initial(Data.of(X, Y))
    with pytest.raises(TypeError, match=r"needs Data, a mapping"):
        from_pyro(logistic).initial(Y)
    with pytest.raises(TypeError, match=r"function that calls pyro.sample"):
        from_pyro("logistic")


def test_rows_that_meet_outside_the_plate() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        rows(pyro.sample("m", dist.Normal(0.0, 1.0)) + x.mean(), x, y)

    data = Data.pad([(X[0], Y[0]), (X[1, :2], Y[1, :2])])
    with pytest.raises(ValueError, match=r"density of task 1 depends on its padding"):
        from_pyro(model).initial(data)
