"""Denoisers of curves and grids: they start at the Gaussian prior, and learn what is the same at all places."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data, DiffusionPrior, DiffusionRegression
from bayesmeta.diffusion import DenoiserNetwork, DiffusionSchedule, GridDenoiser
from bayesmeta.diffusion.denoising.grids.places import places_of
from bayesmeta.random import rand, randint, randn
from tests.families import F64, seed

SHORT = DiffusionSchedule(num_steps=10, num_vectors=16, num_draws=2, num_particles=16, num_rounds=2)
GAPS = [[0, 0], [2, 1], [2, 3], [5, 0], [4, 4], [1, 2]]


def rows_of(theta: torch.Tensor, number: int, noise_sd: float = 0.1) -> Data:
    """Of each arm twice."""
    num, k = theta.shape
    arm = torch.arange(k, dtype=torch.float64).repeat(2)[:, None].expand(num, 2 * k, 1)
    return Data.of(arm, theta.repeat(1, 2) + noise_sd * randn((num, 2 * k), like=F64, generator=seed(number)))


def gaussian_tasks(num: int, k: int, number: int = 1) -> Data:
    return rows_of(randn((num, k), like=F64, generator=seed(number)), number + 1)


def steps(num: int, k: int, number: int) -> torch.Tensor:
    """Curves from -1 to 1, which jump at any one place."""
    place = randint(k - 1, (num, 1), generator=seed(number))
    return torch.where(torch.arange(k) > place, 1.0, -1.0).double()


def initial(tasks: Data, grid: Any, **options: Any) -> DiffusionPrior:
    return DiffusionPrior.initial(tasks, grid=grid, **{"num_particles": 40, "num_levels": 4, "width": 8, **options})


def moved(network: Any) -> Any:
    """With a say of every weight."""
    generator = seed(10)
    weights = network.weights.items()
    return network.with_weights(
        {name: value + 0.2 * randn(value.shape, like=value, generator=generator) for name, value in weights}
    )


def with_a_say() -> tuple[DiffusionPrior, Data]:
    """A prior whose network counts, and a few rows of some tasks."""
    tasks = gaussian_tasks(20, len(GAPS))
    prior = initial(tasks, torch.tensor(GAPS))
    prior = replace(prior, gates=torch.full_like(prior.gates, 0.5), network=moved(prior.network))
    return prior, tasks[:4].rows(slice(0, 2))


@pytest.mark.parametrize(
    ("grid", "k", "sides"),
    [
        ((1,), 1, (1, 1)),
        ((13,), 13, (1, 13)),
        ((4, 7), 28, (4, 7)),
        ([9, 1], 9, (9, 1)),
        (torch.tensor(GAPS), 6, (6, 5)),
    ],
)
def test_it_starts_at_the_gaussian_prior_and_fit_keeps_the_network(grid: Any, k: int, sides: tuple[int, int]) -> None:
    tasks = gaussian_tasks(20, k)
    prior = initial(tasks, grid)
    assert isinstance(prior.network, GridDenoiser)
    assert prior.network.sides == sides
    open_gates = replace(prior, gates=torch.ones_like(prior.gates))  # the network is asked, and says nothing
    torch.testing.assert_close(open_gates.log_evidence(tasks), prior.arms.log_evidence(tasks), rtol=1e-6, atol=1e-6 * k)
    learned = prior.fit(tasks, schedule=SHORT, progress=False)
    assert isinstance(learned.network, GridDenoiser)
    assert (learned.network.sides, learned.network.width, learned.network.num_layers) == (sides, 8, 1)
    assert learned.network.directions.shape == (k, learned.network.num_values)


def test_without_a_grid_fit_keeps_the_perceptron() -> None:
    tasks = gaussian_tasks(20, 3)
    learned = initial(tasks, None, num_layers=2).fit(tasks, schedule=SHORT, progress=False)
    assert isinstance(learned.network, DenoiserNetwork)
    assert (learned.network.width, learned.network.num_layers) == (8, 2)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_answers_have_the_shape_of_what_was_seen(shape: tuple[int, ...]) -> None:
    network = moved(GridDenoiser.of(torch.ones(6), torch.eye(6), places_of(torch.tensor(GAPS), 6), width=8))
    u, noise = randn((*shape, 6), like=F64, generator=seed(2)).float(), 1.0 + rand(shape, like=F64, generator=seed(3))
    found = network.module(u, noise.float())
    assert found.shape == u.shape
    assert found.isfinite().all()


def test_what_it_sees_has_variance_one_at_every_level() -> None:
    cov = 0.3 * torch.eye(12).double() + torch.linspace(0.1, 1.0, 12).double().outer(torch.ones(12).double()).square()
    values, vectors = torch.linalg.eigh(cov + cov.mT)
    network = GridDenoiser.of(values[-8:], vectors[:, -8:], places_of((3, 4), 12))
    seen: list[torch.Tensor] = []
    module = network.module
    module.pyramid.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for noise in (0.2, 1.0, 8.0):
        u = (1.0 + noise**2) ** 0.5 * randn((4000, 8), like=F64, generator=seed(4)).float()
        module(u, torch.full((4000,), noise))
    for channels in seen:  # mean square over places; each has few directions of its own, so the mean of 4000 is close
        torch.testing.assert_close(channels[:, :2].square().mean((0, 2, 3)), torch.ones(2), rtol=0.2, atol=0.0)


@pytest.mark.parametrize("sides", [(1, 37), (9, 9), (2, 17)])
def test_every_place_hears_of_all_others(sides: tuple[int, int]) -> None:
    k = sides[0] * sides[1]
    module = moved(GridDenoiser.of(torch.ones(k), torch.eye(k), places_of(sides, k), width=8)).module
    u = randn((1, k), like=F64, generator=seed(5)).float().requires_grad_()
    for place in (0, k // 2, k - 1):
        (slope,) = torch.autograd.grad(module(u, torch.ones(1))[0, place], u)
        assert (slope != 0.0).all()


def test_in_float32_and_in_pieces_it_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = moved(GridDenoiser.of(torch.ones(6), torch.eye(6), places_of(torch.tensor(GAPS), 6), width=8))
    u, noise = randn((50, 6), like=F64, generator=seed(2)), 0.2 + rand((50,), like=F64, generator=seed(3))
    exact = network.to(torch.float64).module(u, noise)
    torch.testing.assert_close(network.module(u.float(), noise.float()).double(), exact, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("bayesmeta.diffusion.denoising.grids.grid_denoiser.MOST", 7 * 30)
    torch.testing.assert_close(network.to(torch.float64).module(u, noise), exact, rtol=1e-10, atol=1e-10)


def test_in_float32_the_prior_says_nearly_the_same() -> None:
    prior, tasks = with_a_say()
    exact, found = prior.log_evidence(tasks), prior.to(torch.float32).log_evidence(tasks)
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-2)


def test_a_file_holds_the_same_bits(tmp_path: Path) -> None:
    prior, tasks = with_a_say()
    bm.save(prior, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert torch.equal(loaded.network.places, prior.network.places)
    assert torch.equal(loaded.log_evidence(tasks), prior.log_evidence(tasks))
    bm.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "prior.safetensors").read_bytes()


def test_weights_of_a_regression_may_lie_on_a_line() -> None:
    tasks = Data.of(randn((20, 8, 5), like=F64, generator=seed(1)), randn((20, 8), like=F64, generator=seed(2)))
    prior = DiffusionRegression.initial(tasks, grid=(5,), num_particles=40, width=8)
    assert isinstance(prior.fit(tasks, schedule=SHORT, progress=False).network, GridDenoiser)
    with pytest.raises(ValueError, match="grid must have 5 places"):
        DiffusionRegression.initial(tasks, grid=(4,))


@pytest.mark.slow
def test_few_past_curves_teach_that_each_jumps_once() -> None:
    k = 12
    schedule = DiffusionSchedule(num_steps=200, num_vectors=96, num_rounds=1, num_draws=2)
    past, new = rows_of(steps(120, k, 1), 2, 0.3), rows_of(steps(60, k, 3), 4, 0.3)
    learned = initial(past, (k,), width=12, num_levels=8, num_particles=100)
    learned = learned.fit(past, schedule=schedule, progress=False)
    gain = learned.log_evidence(new) - learned.arms.log_evidence(new)
    assert gain.mean() > 5.0 * gain.std() / len(gain) ** 0.5


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ((5,), ValueError, "grid must have 6 places, one for each value; got 5. Where some places have none"),
        ((2, 4), ValueError, "grid must have 6 places, one for each value; got 2 x 4"),
        ((1, 2, 3), ValueError, "grid must have one side or two; got 3"),
        ((), ValueError, "grid must have one side or two; got 0"),
        ((0, 6), ValueError, "a side of grid must be at least 1; got 0"),
        ((-2, -3), ValueError, "a side of grid must be at least 1; got -2"),
        ((2.0, 3.0), TypeError, "a side of grid must be a whole number; got 2.0"),
        (torch.zeros(5, 2).long(), ValueError, r"a place for each of 6 values; got shape \(5, 2\)"),
        (torch.zeros(6, 3).long(), ValueError, r"a place for each of 6 values; got shape \(6, 3\)"),
        (torch.tensor(6), ValueError, r"a place for each of 6 values; got shape \(\)"),
        (torch.zeros(6, 2), TypeError, "grid must hold whole numbers; got torch.float32"),
        (torch.tensor(GAPS) * 1000, ValueError, "a grid has at most 65536 places; got 5001 x 4001"),
        (torch.tensor([*GAPS[:5], GAPS[1]]), ValueError, r"value 1 shares \[2, 1\]"),
    ],
)
def test_grids_that_cannot_be(grid: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        initial(gaussian_tasks(10, 6), grid)


def test_places_count_from_zero() -> None:
    assert places_of([[-3], [4], [0]], 3).tolist() == [[0, 0], [0, 7], [0, 3]]
    assert places_of((2, 2), 4).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
