from pathlib import Path

import arviz
import numpy as np
import pytest
import torch
from torch import Tensor

from bayesmeta.mcmc import Draws, sample
from bayesmeta.mcmc.targets import Densities
from tests.bayesmeta.mcmc.targets import gaussians
from tests.seeds import seed

NAMES = ["north", "south", "west"]


def constrain(x: Tensor) -> dict[str, Tensor]:
    return {"rate": x[..., 0].exp(), "weights": x[..., 1:]}


@pytest.fixture(scope="module")
def draws() -> Draws:
    targets, _, _ = gaussians(3, 3)
    return sample(
        targets,
        num_draws=100,
        num_chains=2,
        constrain=constrain,
        task_names=NAMES,
        progress=False,
        generator=seed(0),
    )


def test_arviz_takes_them(draws: Draws) -> None:
    values = draws.params["weights"][..., 0]
    found = draws.to_arviz(observed_data={"y": np.zeros((3, 5))}, log_likelihood={"y": -0.05 * values.square().numpy()})
    assert found.posterior.rate.dims == ("chain", "draw", "task")
    assert list(found.posterior.task.values) == NAMES
    np.testing.assert_array_equal(found.posterior.weights.values, draws.params["weights"].numpy())
    stats = found.sample_stats
    np.testing.assert_allclose((stats.lp - stats.log_q).values, stats.log_weight.values, rtol=1e-12)
    assert list(stats.step.values) == ["laplace_t"] * 3
    assert stats.pareto_k.dims == ("task",)
    assert 0.0 < float(stats.is_accepted.mean()) <= 1.0
    table = arviz.summary(found)
    assert "rate[north]" in table.index
    # arviz rounds to whole draws
    np.testing.assert_allclose(table.loc["rate[north]", "ess_bulk"], draws.ess_bulk[0, 0], atol=0.51)
    assert arviz.loo(found).n_data_points == 3
    assert found.observed_data.y.dims[0] == "task"


def test_a_file_holds_what_arviz_has(draws: Draws, tmp_path: Path) -> None:
    path = draws.to_netcdf(tmp_path / "draws.nc")
    read, made = arviz.from_netcdf(path), draws.to_arviz()
    for name in ("rate", "weights"):
        np.testing.assert_array_equal(read.posterior[name].values, made.posterior[name].values)
    for name in ("lp", "log_q", "log_weight", "acceptance_rate", "is_accepted"):
        np.testing.assert_array_equal(read.sample_stats[name].values, made.sample_stats[name].values)
    assert list(read.posterior.task.values) == NAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draws.nc"]


def test_report_and_what_it_says_of_itself(draws: Draws) -> None:
    report = draws.report()
    assert report["task"].to_list() == NAMES
    assert report["step"].to_list() == ["laplace_t"] * 3
    assert bool((report["ess_bulk"] > 50).all())
    text = repr(draws)
    assert text.startswith("Draws of 3 tasks: 2 chains of 100 draws each")
    assert "laplace_t 3" in text


def test_the_same_generator_gives_the_same_draws() -> None:
    targets, _, _ = gaussians(2, 2)
    one, other = (sample(targets, num_draws=20, progress=False, generator=seed(1)) for _ in range(2))
    assert one.position.equal(other.position)


def test_some_tasks_are_sampled_as_all_are() -> None:
    """What is asked of some tasks at a time is what is asked of all: data are indexed with their targets."""
    targets, _, _ = gaussians(5, 2)
    index = torch.tensor([3, 1])
    x = torch.randn(4, 5, 2, generator=seed(2), dtype=torch.float64)
    part = targets[index]
    assert isinstance(part, Densities)
    torch.testing.assert_close(part.log_density(x[:, index]), targets.log_density(x)[:, index])


def test_data_of_another_number_of_tasks() -> None:
    targets, _, _ = gaussians(3, 2)
    with pytest.raises(ValueError, match="must have the tasks of reference, 3"):
        Densities(targets.function, targets.reference, {"mean": torch.zeros(2, 2)})
