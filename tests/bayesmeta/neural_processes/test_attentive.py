"""The attentive neural process: what it learns, and what its two paths do."""

import pytest
import torch
from torch import Generator

from bayesmeta import AttentiveNeuralProcess, Data
from bayesmeta.neural_processes.learning import Schedule
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, seed

FAMILY = FAMILIES["attentive_neural_process"]


class Sines:
    """Tasks of one amplitude and phase each, and little noise."""

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        x = rand((num_tasks, num_rows, 1), like=F64, generator=generator)
        height, phase = (rand((num_tasks, 1), like=F64, generator=generator) for _ in range(2))
        noise = randn((num_tasks, num_rows), like=F64, generator=generator)
        return Data.of(x, (1.0 + height) * torch.sin(6.0 * (x[..., 0] + phase)) + 0.1 * noise)


def test_steps_on_sines_lower_the_loss() -> None:
    stream = Sines()
    start = AttentiveNeuralProcess.initial(
        stream.draw(50, 20, generator=seed(1)), width=16, num_layers=1, num_latent=8, num_attending=1, num_heads=4
    )
    schedule = Schedule(300, num_tasks=16, most_known=12, num_asked=8, rate=5e-3, average=0.98)
    prior = start.fit(stream, schedule=schedule, generator=seed(2), progress=False)
    new = stream.draw(200, 16, generator=seed(3))
    known, asked = new.rows(slice(0, 10)), new.rows(slice(10, 16))
    before, after, without = (
        float(each.predict(asked.x).log_prob(asked.y).mean())
        for each in (start.condition(known), prior.condition(known), prior.expand((200,)))
    )
    assert after > before + 0.2
    assert after > without + 0.2, "it looks at the rows"


def test_draws_differ_by_z_alone() -> None:
    posterior, x = FAMILY.prior.condition(FAMILY.rows(5)), FAMILY.draw_x(4, seed(1))
    draws = posterior.sample(3, generator=seed(2))
    assert torch.equal(draws.predict(x).mean, draws(x))
    one = draws.z[1]
    expected = posterior.head.distribution(posterior.network.module.decode(posterior._asked(x), one)).mean
    torch.testing.assert_close(draws(x)[1], expected, rtol=1e-12, atol=1e-12)
    assert (draws(x).std(0) > 0.0).all()


def test_both_paths_see_the_rows() -> None:
    rows, x = FAMILY.rows(5), FAMILY.draw_x(4, seed(1))
    prior, posterior = FAMILY.prior, FAMILY.prior.condition(rows)
    assert not torch.allclose(prior._latent.mean, posterior._latent.mean)
    found, nothing = posterior._asked(x), prior._asked(x)
    num = prior.network.num_inputs
    assert torch.equal(found[:, :num], nothing[:, :num])
    assert not torch.allclose(found[:, num:], nothing[:, num:])
    assert torch.equal(nothing[0, num:], nothing[1, num:]), "there is nothing to find, wherever one asks"


@pytest.mark.parametrize("count", [0, 4])
def test_slopes_at_what_is_asked_are_those_of_differences(count: int) -> None:
    posterior, x = FAMILY.prior.condition(FAMILY.rows(count)), FAMILY.draw_x(3, seed(1)).requires_grad_()
    (slope,) = torch.autograd.grad(posterior.marginal(x).mean.sum(), x)
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        moved = [(posterior.marginal(x + d).mean - posterior.marginal(x - d).mean) / 2e-6 for d in step]
    torch.testing.assert_close(slope, torch.stack(moved, -1), rtol=1e-5, atol=1e-7)


def test_members_with_a_vector_are_imported_from_their_folder() -> None:
    from bayesmeta.neural_processes.latent import LatentFunctions, LatentNetwork, LatentNeuralProcess

    latent = FAMILIES["latent_neural_process"].prior
    assert isinstance(latent, LatentNeuralProcess)
    assert isinstance(latent.network, LatentNetwork)
    assert isinstance(latent.sample(2, generator=seed(1)), LatentFunctions)
