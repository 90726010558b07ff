"""Every kernel leaves its target unchanged: chains that start at exact draws are still exact draws after some steps."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from bayesmeta.mcmc import Densities, Hamiltonian, Independence, RandomWalk, Resampling, StudentMixture, run
from bayesmeta.mcmc.exactness import joint_simulation
from bayesmeta.mcmc.kernels.hamiltonian import warm_up
from bayesmeta.mcmc.kernels.independence import accept_in_turn
from bayesmeta.mcmc.kernels.protocol import Kernel
from bayesmeta.mcmc.targets import Targets
from tests.bayesmeta.mcmc.targets import gaussians, normal_reference, two_modes
from tests.seeds import seed

Make = Callable[[Targets], Kernel]


def poor(targets: Targets) -> StudentMixture:
    """A proposal that fits nothing well."""
    wide = normal_reference(targets.num_tasks, 2, 1.5)
    return wide._replace(loc=wide.loc + 0.5, df=4.0)


def eye(targets: Targets, scale: float) -> Tensor:
    return scale * torch.eye(2).double().expand(targets.num_tasks, 2, 2)


KERNELS: dict[str, Make] = {
    "independence": lambda t: Independence(t, poor(t)),
    "resampling": lambda t: Resampling(t, poor(t), num_proposals=3),
    "random_walk": lambda t: RandomWalk(t, eye(t, 1.5)),
    "hamiltonian": lambda t: Hamiltonian(t, eye(t, 1.0), torch.full((t.num_tasks,), 0.6).double(), most_steps=4),
}


@pytest.fixture(params=list(KERNELS))
def make(request: pytest.FixtureRequest) -> Make:
    return KERNELS[request.param]


def test_exact_draws_stay_exact(make: Make) -> None:
    targets, mean, cov = gaussians(3, 2)
    noise = torch.randn(4000, 3, 2, 1, generator=seed(1), dtype=torch.float64)
    root = torch.linalg.cholesky(cov)
    kernel = make(targets)
    state, positions, densities, info = run(kernel, kernel.init(mean + (root @ noise)[..., 0]), 5, seed(2))
    white = torch.linalg.solve_triangular(root, (state.position - mean)[..., None], upper=False)[..., 0]
    for column in white.flatten(1).mT:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-5
    product = (white[..., 0] * white[..., 1]).mean(0)  # of two independent normals: variance one
    assert bool((product.abs() < 5.0 / 4000**0.5).all())
    torch.testing.assert_close(densities[-1], targets.log_density(state.position))
    assert positions.shape == (5, 4000, 3, 2)
    assert bool(((info.acceptance_rate >= 0) & (info.acceptance_rate <= 1.0 + 1e-12)).all())
    moved = (positions.diff(dim=0) != 0).any(-1)
    assert bool((moved == info.is_accepted[1:]).all())
    assert 0.02 < float(moved.double().mean()) < 1.0


def test_joint_simulation(make: Make) -> None:
    """Rows of a normal with unknown mean and log deviation: data drawn anew, one step, and so on."""
    prior = normal_reference(3000, 2, 0.7)

    def log_density(x: Tensor, y: Tensor) -> Tensor:
        fit = -0.5 * ((y - x[..., :1]) / x[..., 1:].exp()).square() - x[..., 1:]
        return fit.sum(-1) - 0.5 * (x / 0.7).square().sum(-1)

    def kernel_of(params: Tensor, generator: Generator | None) -> Kernel:
        noise = torch.randn(3000, 3, generator=generator, dtype=torch.float64)
        return make(Densities(log_density, prior, {"y": params[:, :1] + params[:, 1:].exp() * noise}))

    found = joint_simulation(kernel_of, prior.sample_params(1, generator=seed(3))[0], generator=seed(4))
    for column in found.mT:
        assert stats.kstest(column.numpy(), "norm", args=(0.0, 0.7)).pvalue > 1e-5
    assert abs(float((found[:, 0] * found[:, 1]).mean())) < 5.0 * 0.49 / 3000**0.5


def test_chains_in_turn_are_those_of_steps() -> None:
    """The fast way through many steps of an independence chain has the law of single steps."""
    targets, _ = two_modes(1)
    proposal = poor(targets)
    kernel = Independence(targets, proposal)
    start = torch.zeros(2000, 1, 2).double()
    slow = run(kernel, kernel.init(start), 3, seed(5))[0].position[:, 0]
    draws, log_q = proposal.draw(3 * 2000, generator=seed(6))
    log_weights = (targets.log_density(draws) - log_q).unflatten(0, (3, 2000))
    first = targets.log_density(start) - proposal.log_prob(start)
    places, rates = accept_in_turn(log_weights, first, seed(7))
    steps = torch.cat([start[None], draws.unflatten(0, (3, 2000))])
    fast = steps.gather(0, places[-1:, ..., None].add(1).expand(1, 2000, 1, 2))[0, :, 0]
    stay_slow, stay_fast = ((one == 0).all(-1).double().mean() for one in (slow, fast))
    assert abs(float(stay_slow - stay_fast)) < 5.0 * (0.5 / 2000) ** 0.5
    for i in range(2):
        assert stats.ks_2samp(slow[:, i].numpy(), fast[:, i].numpy()).pvalue > 1e-5
    assert rates.shape == (3, 2000, 1)


def test_step_sizes_are_found_before_draws_are_kept() -> None:
    targets, _, _ = gaussians(4, 2)
    kernel = Hamiltonian(targets, eye(targets, 1.0), torch.full((4,), 30.0).double())
    state = kernel.init(torch.zeros(4, 4, 2).double())
    tuned, state = warm_up(kernel, state, 300, seed(8))
    _, _, _, info = run(tuned, state, 200, seed(9))
    rate = info.acceptance_rate.mean((0, 1))
    assert bool(((rate > 0.6) & (rate < 0.97)).all())
    assert kernel.step_size.tolist() == [30.0] * 4


def test_a_chain_without_a_density_moves_to_where_there_is_one() -> None:
    targets, _, _ = gaussians(1, 2)

    def cut(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        inside = targets.log_density(x)
        return torch.where(x[..., 0] > mean[..., 0], inside, torch.nan)

    half = Densities(cut, targets.reference, targets.data)
    start = targets.data["mean"] - torch.tensor([1.0, 0.0])
    kernel = Independence(half, poor(half))
    state, _, densities, _ = run(kernel, kernel.init(start[None]), 200, seed(10))
    assert densities[0].item() == -torch.inf or densities[0].isfinite()
    assert bool(state.log_density.isfinite().all())
