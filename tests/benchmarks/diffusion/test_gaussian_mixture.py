"""The mixture of Gaussians beside diffusion priors: exact steps, kinds that are found, and one where there is one."""

from typing import cast

import torch

from bayesmeta import CorrelatedArms, Mixture
from benchmarks.diffusion.gaussian_mixture import _Kinds, _Rows, learn_mixture
from benchmarks.diffusion.truths import all_arms, gaussian_truth, rows_by_count, three_modes
from tests.seeds import seed


def test_evidence_and_moments_are_those_of_the_family() -> None:
    truth = three_modes(5, 0.3, seed(1))
    components = cast(CorrelatedArms, truth.components)
    theta = truth.sample(6, generator=seed(2))(all_arms(5))
    count = torch.randint(3, (6, 5), generator=seed(3))
    count[:, 0] = 1
    data = rows_by_count(theta, count, 0.3, seed(4))
    rows = _Rows(components.statistics(data), components.noise_var[0])
    found = rows.log_evidence(_Kinds(components.loc, components.cov, truth.log_weights))
    each = torch.stack([components[[i]].log_evidence(data) for i in range(3)], -1)
    torch.testing.assert_close(found - found[:, :1], each - each[:, :1], rtol=1e-8, atol=1e-8)
    weight = torch.rand(6, generator=seed(5), dtype=torch.float64)
    mean, cov = rows.moments(components.loc[1], components.cov[1], weight)
    after = components[[1]].condition(data)
    torch.testing.assert_close(mean, after.loc, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(cov, (weight[:, None, None] * after.cov).sum(0), rtol=1e-8, atol=1e-8)


def learned(truth: CorrelatedArms | Mixture, num_arms: int) -> tuple[CorrelatedArms, Mixture]:
    theta = truth.sample(300, generator=seed(6))(all_arms(num_arms))
    data = rows_by_count(theta, torch.full(theta.shape, 2), 0.1, seed(7))
    gaussian = CorrelatedArms.initial(data).fit(data)
    return gaussian, learn_mixture(gaussian, gaussian.statistics(data), seed(8))


def test_kinds_are_found() -> None:
    truth = three_modes(6, 0.1, seed(9))
    gaussian, found = learned(truth, 6)
    assert found.log_weights.shape[-1] >= 2  # two of the three kinds may be nearly alike
    new = truth.sample(300, generator=seed(10))(all_arms(6))
    data = rows_by_count(new, torch.ones(300, 6).long(), 0.1, seed(11))
    gain = found.log_evidence(data) - gaussian.log_evidence(data)
    behind = truth.log_evidence(data) - found.log_evidence(data)
    assert gain.mean() > 5.0 * gain.std() / 300**0.5
    assert behind.mean() < 0.5


def test_a_gaussian_is_left_as_it_is_or_hardly_changed() -> None:
    truth = gaussian_truth(6, 0.1, seed(12))
    gaussian, found = learned(truth, 6)
    new = truth.sample_params(300, generator=seed(13))
    data = rows_by_count(new, torch.ones(300, 6).long(), 0.1, seed(14))
    assert (gaussian.log_evidence(data) - found.log_evidence(data)).mean() < 0.5
