import numpy as np
import pytest
import torch
from scipy import stats

from bayesmeta.mcmc import StudentMixture
from bayesmeta.mcmc.proposals.defended import defended
from tests.bayesmeta.mcmc.targets import normal_reference
from tests.seeds import seed


def mixture(num_components: int, df: float) -> StudentMixture:
    g = seed(0)
    logits, loc = (torch.randn(2, num_components, *more, generator=g, dtype=torch.float64) for more in ((), (3,)))
    noise = torch.randn(2, num_components, 3, 3, generator=g, dtype=torch.float64)
    return StudentMixture(logits, loc, torch.eye(3).double() + 0.3 * noise.tril(-1), df)


@pytest.mark.parametrize("df", [5.0, 8.0])
@pytest.mark.parametrize("num_components", [1, 3])
def test_density_is_that_of_scipy(num_components: int, df: float) -> None:
    proposal = mixture(num_components, df)
    x, log_prob = proposal.draw(50, generator=seed(1))
    for task in range(2):
        weights = proposal.logits[task].softmax(-1).numpy()
        each = [
            stats.multivariate_t(loc.numpy(), (root @ root.mT).numpy(), df).pdf(x[:, task].numpy())
            for loc, root in zip(proposal.loc[task], proposal.scale_tril[task], strict=True)
        ]
        np.testing.assert_allclose(log_prob[:, task].exp().numpy(), weights @ np.array(each), rtol=1e-9)
    torch.testing.assert_close(log_prob, proposal.log_prob(x))


@pytest.mark.parametrize("df", [5.0, 8.0])
@pytest.mark.parametrize("num_components", [1, 3])
def test_draws_have_the_density(num_components: int, df: float) -> None:
    """The mean of q / p over draws of p is one, for any density q: here one that is narrower."""
    proposal = mixture(num_components, df)
    other = StudentMixture(proposal.logits, proposal.loc, 0.8 * proposal.scale_tril, 30.0)
    x, log_prob = proposal.draw(20_000, generator=seed(2))
    ratio = (other.log_prob(x) - log_prob).exp()
    error = ratio.std(0) / 20_000**0.5
    assert bool(((ratio.mean(0) - 1.0).abs() < 5.0 * error).all())
    sign = (x - proposal.mean).sign()  # and means on either side of the centre agree
    error = (ratio[..., None] * sign).std(0) / 20_000**0.5
    symmetric = num_components == 1
    assert not symmetric or bool(((ratio[..., None] * sign).mean(0).abs() < 5.0 * error).all())


def test_a_share_of_another_is_in_the_density_and_in_the_draws() -> None:
    both = defended(mixture(2, 8.0), normal_reference(2, 3, 6.0), 0.3)
    x = both.sample_params(20_000, generator=seed(3))
    wide = normal_reference(2, 3, 5.0)
    ratio = (wide.log_prob(x) - both.log_prob(x)).exp()
    assert bool(((ratio.mean(0) - 1.0).abs() < 5.0 * ratio.std(0) / 20_000**0.5).all())
