"""Objectives that a simulator draws, from which a network learns to tune."""

import pytest
import torch

from bayesmeta.neural_processes import TaskStream
from bo.priors.simulated_studies import SimulatedStudies
from tests.seeds import seed


def points() -> torch.Tensor:
    return torch.rand(500, 3, generator=seed(0), dtype=torch.float64)


def test_is_a_stream_of_tasks_on_its_points() -> None:
    stream = SimulatedStudies(points())
    assert isinstance(stream, TaskStream)
    tasks = stream.draw(8, 20, generator=seed(1))
    assert tasks.y.shape == (8, 20)
    assert bool(tasks.mask.all())
    known = {tuple(row) for row in points().tolist()}
    assert all(tuple(row) in known for row in tasks.x.flatten(0, 1).tolist())
    assert not torch.equal(tasks.x[0], tasks.x[1]), "each objective has rows of its own"


def test_objectives_are_normal_scores_of_their_rows_scaled_and_shifted() -> None:
    y = SimulatedStudies(points()).draw(50, 20, generator=seed(2)).y.sort(-1).values
    expected = torch.special.ndtri((torch.arange(20, dtype=torch.float64) + 0.5) / 20)
    standard = (y - y.mean(-1, keepdim=True)) / (y - y.mean(-1, keepdim=True)).square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(standard, (expected / expected.square().mean().sqrt()).expand_as(y))
    assert len({round(value, 6) for value in y.mean(-1).tolist()}) == 50


def test_near_points_have_near_values() -> None:
    tasks = SimulatedStudies(points()[:, :1]).draw(100, 40, generator=seed(4))
    along = tasks.y.gather(1, tasks.x[..., 0].argsort(-1))
    next_to_each_other = along.diff(dim=-1).abs().mean(-1)
    anyone = (tasks.y[:, :, None] - tasks.y[:, None]).abs().mean((-1, -2))
    assert float((next_to_each_other / anyone).mean()) < 0.7


def test_columns_differ_in_how_much_they_matter() -> None:
    """Of two columns, one usually says far more of the ranks than the other."""
    grid = torch.linspace(0.0, 1.0, 40, dtype=torch.float64)
    x = torch.rand(4000, 2, generator=seed(5), dtype=torch.float64)
    tasks = SimulatedStudies(torch.cat([x, torch.stack([grid, grid], -1)])).draw(200, 60, generator=seed(6))
    centred = tasks.x - tasks.x.mean(1, keepdim=True)
    slopes = (centred * tasks.y[..., None]).mean(1).square()
    share = slopes.amax(-1) / slopes.sum(-1)
    assert float(share.mean()) > 0.75


@pytest.mark.parametrize("bad", [torch.zeros(0, 2), torch.full((3, 2), torch.nan)])
def test_refuses_points_that_are_none(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="points must be"):
        SimulatedStudies(bad)
