"""The prior over arms with features: any number of arms in any order, and the Gaussian process without a network."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

import bandits
from bayesmeta import Data, load, save
from bayesmeta.diffusion.denoising.attention import ArmSets
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.featured.calibration import _fitted, factors
from bayesmeta.diffusion.featured.fitting import Coordinates, SetLearner
from bayesmeta.diffusion.featured.past_sets import groups_of
from bayesmeta.diffusion.featured.process import NeuralDiffusionProcess
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import ArmRows
from bayesmeta.diffusion.sampling.posterior import weighted
from bayesmeta.random import rand, randint, randn
from tests.bayesmeta.diffusion.gaussians import symmetric_root
from tests.families import F64, seed

CENTRES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
OWN, NOISE = 0.2, 0.1  # standard deviations of what an arm has of its own, and of a row
SHORT = DiffusionSchedule(num_steps=8, num_vectors=8, num_rounds=1, num_draws=2, num_particles=8)


class OneClusterPays:
    """Tasks of a few arms out of four clusters, of which one pays."""

    def __init__(self, number: int) -> None:
        self.generator = seed(number)

    def task(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, clusters, and rewards with noise, of 4 to 12 arms."""
        num = 4 + int(randint(9, (), generator=self.generator))
        cluster, paying = randint(4, (num,), generator=self.generator), randint(4, (), generator=self.generator)
        x = CENTRES[cluster] + 0.3 * randn((num, 2), like=F64, generator=self.generator)
        sd = math.hypot(OWN, NOISE)
        y = (cluster == paying).double() + sd * randn((num,), like=F64, generator=self.generator)
        return x, cluster, y

    def tasks(self, num: int) -> Data:
        return Data.pad([(x, y) for x, _, y in (self.task() for _ in range(num))])


def small(number: int = 1) -> NeuralDiffusionProcess:
    return NeuralDiffusionProcess.initial(
        OneClusterPays(number).tasks(20), width=8, num_heads=2, num_layers=1, num_levels=4, num_particles=60
    )


def with_any_network(prior: NeuralDiffusionProcess, generator: Generator) -> NeuralDiffusionProcess:
    """One that says something, in float64."""
    network = prior.network.to(torch.float64)
    random = {
        name: value + 0.3 * randn(value.shape, like=value, generator=generator)
        for name, value in network.weights.items()
    }
    some = torch.tensor([[-0.2, 0.1]], dtype=torch.float64).expand(len(prior.noises), 2)
    gates = torch.full_like(prior.gates, 0.7)
    return replace(prior, network=network.with_weights(random), gates=gates, residual_factors=some)


def features(num: int, number: int) -> Tensor:
    return randn((num, 2), like=F64, generator=seed(number))


def rows_of(arm: Tensor, number: int) -> Data:
    return Data.of(arm[:, None].double(), randn((len(arm),), like=F64, generator=seed(number)))


@pytest.mark.parametrize("num_arms", [1, 2, 7])
def test_without_a_network_it_is_the_gaussian_process(num_arms: int) -> None:
    prior, x = small(), features(num_arms, 2)
    arms = torch.arange(num_arms)
    data = rows_of(arms, 3)
    at_features = Data.of(x, data.y)
    expected = prior.process.log_evidence(at_features)
    torch.testing.assert_close(prior.over(x).log_evidence(data), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.log_evidence(Data.pad([(x, data.y)]))[0], expected, rtol=1e-4, atol=1e-4)
    after, exact = prior.over(x).condition(data), prior.process.condition(at_features)
    at = arms.double()[:, None]
    torch.testing.assert_close(after.predict(at).mean, exact.predict(x).mean, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(
        after.arms.condition(data).marginal(at).mean, exact.marginal(x).mean, rtol=0.0, atol=1e-4
    )
    assert float(after.ess) == pytest.approx(60.0)


def test_arms_in_another_order_have_the_same_guesses_in_that_order() -> None:
    prior, x = with_any_network(small(), seed(3)), features(6, 4)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    plain, turned = prior.over(x), prior.over(x[order])
    u = randn((5, 6), like=F64, generator=seed(5)) @ plain.chain.root.mT
    for level in range(len(prior.noises)):
        guess = plain.chain.denoise(u, level)
        assert (guess - u / (1.0 + prior.noises[level].square())).abs().max() > 1e-3
        torch.testing.assert_close(turned.chain.denoise(u[:, order], level), guess[:, order], rtol=1e-9, atol=1e-9)
        cov = plain.chain.residual(level)
        torch.testing.assert_close(turned.chain.residual(level), cov[order][:, order], rtol=1e-9, atol=1e-9)


def test_posteriors_turn_with_arms_where_noise_turns() -> None:
    prior, x = with_any_network(small(), seed(3)), features(6, 4)
    order, arm = torch.tensor([3, 1, 5, 0, 4, 2]), torch.tensor([0, 2, 2, 5])
    data = rows_of(arm, 6)
    moved = Data.of(order.argsort()[arm][:, None].double(), data.y)
    plain, turned = prior.over(x), prior.over(x[order])
    for each in (plain, turned):  # a Cholesky factor, which does as well in law, does not turn
        roots = torch.stack([symmetric_root(cov) for cov in each.chain.residual_cov])
        each.chain.__dict__["residual_roots"] = each.chain.root @ roots

    class Turned(ParticleNoise):
        def normal(self) -> Tensor:
            return super().normal()[..., order]

    def particles(prior: DiffusionPrior, data: Data, kind: type[ParticleNoise]) -> tuple[Tensor, Tensor]:
        rows = prior.statistics(data)[None]
        seen = ArmRows.of_statistics(rows, prior.arms.loc, prior.arms.noise_var)
        found = weighted(prior.chain, seen, kind(1, 60, 6, F64, seed(7)))
        return found.mean, found.log_evidence

    mean, evidence = particles(plain, data, ParticleNoise)
    other, same = particles(turned, moved, Turned)
    torch.testing.assert_close(other, mean[..., order], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(same, evidence, rtol=1e-7, atol=1e-7)


def test_pads_are_invisible() -> None:
    prior = with_any_network(small(), seed(3))
    x, y = features(5, 4), randn((5,), like=F64, generator=seed(8))
    alone = Data.of(x[None], y[None])
    padded = Data(
        torch.cat([x, torch.full((3, 2), 1e6).double()])[None],
        torch.cat([y, torch.full((3,), 1e6).double()])[None],
        torch.tensor([[True] * 5 + [False] * 3]),
    )
    assert torch.equal(prior.log_evidence(padded), prior.log_evidence(alone))
    beside = Data.pad([(x, y), (features(9, 9), randn((9,), like=F64, generator=seed(10)))])
    assert torch.equal(prior.log_evidence(beside)[:1], prior.log_evidence(alone))
    past = Coordinates.of(prior, groups_of(beside))
    assert past.sets.features.shape == (2, 9, 2)
    own, _, _, sets = prior.at(x)
    u = randn((3, own.num_arms), like=F64, generator=seed(11))[:, : sets.values.shape[-1]]
    noise = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    wide = torch.cat([u, u.new_full((3, past.variances.shape[-1] - u.shape[-1]), 7.0)], -1)
    order = torch.unique(x, dim=0, return_inverse=True)[1].argsort()
    first = ArmSets(*(part[0] for part in past.sets))
    said, by_itself = prior.network.module(wide, noise, first), prior.over(x[order]).network.module(u, noise)
    assert by_itself.abs().max() > 1e-3
    torch.testing.assert_close(said[:, : u.shape[-1]], by_itself, rtol=1e-9, atol=1e-9)
    assert not said[:, u.shape[-1] :].any()


def test_rows_of_equal_features_are_of_one_arm_and_tasks_of_equal_arms_go_together() -> None:
    x = features(3, 4)
    tasks = Data.pad(
        [
            (x[[0, 1, 0]], torch.tensor([1.0, 2.0, 3.0]).double()),
            (x[[2]], torch.tensor([4.0]).double()),
            (x[[1, 0]], torch.tensor([5.0, 6.0]).double()),
        ]
    )
    pair, single = groups_of(tasks)
    assert pair.tasks.tolist() == [0, 2]
    assert single.tasks.tolist() == [1]
    first = int((pair.features == x[0]).all(-1).nonzero())
    assert pair.rows.count[:, first].tolist() == [2.0, 1.0]
    assert pair.rows.mean[:, first, 0].tolist() == [2.0, 6.0]
    assert single.rows.count.tolist() == [[1.0]]


def test_it_learns_from_tasks_of_any_number_of_arms_and_is_gaussian_where_they_are_few() -> None:
    world = OneClusterPays(3)
    ones = [(x[:1], y[:1]) for x, _, y in (world.task() for _ in range(4))]
    others = [(x, y) for x, _, y in (world.task() for _ in range(8))]
    tasks = Data.pad([*ones, *others, (features(0, 1), F64.new_zeros(0))])
    learned = small().fit(tasks, schedule=SHORT, progress=False)
    assert "12 tasks" in repr(learned)
    assert not learned.gates.any()
    assert len(learned.noises) == 1
    exact = learned.process.log_evidence(tasks)
    torch.testing.assert_close(learned.log_evidence(tasks), exact, rtol=1e-4, atol=1e-4)
    assert float(learned.log_evidence(tasks)[-1]) == 0.0


def test_residuals_are_as_wide_as_held_out_tasks_say() -> None:
    widths = -2.0 * rand((500, 4), like=F64, generator=seed(1))
    real = rand((500, 4), like=F64, generator=seed(2)) < 0.8
    true = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    squares = factors(true, widths) * randn((500, 4), like=F64, generator=seed(3)).square()
    assert (_fitted(squares, widths, real) - true).abs().max() < 5.0 * 0.1
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert not _fitted(squares[:1], widths[:1], nothing).any()


def test_a_network_starts_at_zero_and_learning_has_gradients() -> None:
    prior, tasks = small(), OneClusterPays(5).tasks(6)
    past = Coordinates.of(prior, groups_of(tasks))
    learner = SetLearner(prior.network, prior.noises, past)
    theta = randn((6, 2, past.variances.shape[-1]), like=F64, generator=seed(6)).float()
    theta = theta * (past.variances > 0.0)[:, None]
    look = learner.look(theta, slice(2, None), 32, seed(7))
    weights = {name: value.clone().requires_grad_() for name, value in prior.network.weights.items()}
    learner.loss(weights, look).backward()
    last = weights["last.weight"].grad
    assert last is not None
    assert last.abs().max() > 0.0
    assert not prior.network.module(look[2], look[1], look[4]).any()


def test_a_bandit_plays_tasks_with_arms_of_their_own() -> None:
    prior = with_any_network(small(), seed(3))
    for num_arms in (1, 3, 6):
        policy = bandits.ThompsonSampling(prior.over(features(num_arms, 4)), list(range(num_arms)))
        for _ in range(3):
            decision = policy.choose()
            policy.update(decision, 1.0)


def test_files_keep_both(tmp_path: Path) -> None:
    prior, tasks = with_any_network(small(), seed(3)), OneClusterPays(4).tasks(3)
    save(prior, tmp_path / "process.safetensors")
    found = load(tmp_path / "process.safetensors")
    assert found.equals(prior)
    assert torch.equal(found.log_evidence(tasks), prior.log_evidence(tasks))
    at = prior.over(features(4, 4)).condition(rows_of(torch.tensor([0, 3, 3]), 5))
    save(at, tmp_path / "arms.safetensors")
    again, arms = load(tmp_path / "arms.safetensors"), torch.arange(4)[:, None]
    assert again.equals(at)
    assert torch.equal(again.predict(arms).mean, at.predict(arms).mean)


def test_bad_input() -> None:
    prior = small()
    with pytest.raises(ValueError, match="features must have shape"):
        prior.over(features(3, 1)[:, :1])
    with pytest.raises(ValueError, match="one arm or more"):
        prior.over(features(0, 1))
    with pytest.raises(ValueError, match="fit the process itself"):
        prior.over(features(2, 1)).fit(rows_of(torch.arange(2), 2), progress=False)
    with pytest.raises(ValueError, match="rows that it has seen"):
        replace(prior, process=prior.process.condition(OneClusterPays(2).tasks(1)[0]))
    with pytest.raises(ValueError, match="two tasks"):
        prior.fit(OneClusterPays(2).tasks(1), progress=False)


@pytest.mark.slow
def test_it_learns_that_one_cluster_pays() -> None:
    world = OneClusterPays(1)
    start = NeuralDiffusionProcess.initial(world.tasks(10), num_levels=6, width=24, num_particles=128)
    schedule = DiffusionSchedule(num_steps=300, num_rounds=1, num_vectors=32, num_particles=32, num_draws=4)
    learned, held_out = start.fit(world.tasks(200), schedule=schedule, progress=False), world.tasks(100)
    gain = learned.log_evidence(held_out) - learned.process.log_evidence(held_out)
    assert gain.mean() > 5.0 * gain.std() / len(gain) ** 0.5
