"""Learned priors against those of families in closed form."""

import torch

from bayesmeta import Data, LinearGaussian, from_pyro
from tests.bayesmeta.pyro_models.models import logistic, noise, normal
from tests.bayesmeta.pyro_models.test_prior import line
from tests.seeds import seed


def test_learned_mean_and_variance_are_those_of_most_evidence() -> None:
    """Normal rows of variance one: means of n rows have variance v + 1 / n, whose best v is known."""
    tasks, n = 60, 4
    y = 1.0 + 0.8 * noise(tasks, 1) + noise(tasks, n, number=1)
    prior = from_pyro(normal).fit(Data.of(None, y), hyperprior_weight=0.0, progress=False, generator=seed(2))
    means = y.mean(1)
    var = means.var(correction=0) - 1.0 / n
    assert abs(float(prior.loc - means.mean())) < 0.05
    assert abs(float(prior.scale_tril.square().sum() / var) - 1.0) < 0.2
    assert prior.learned_from is not None
    assert (prior.learned_from.tasks, prior.learned_from.rows) == (tasks, tasks * n)


def test_learned_weights_have_the_evidence_of_the_closed_form() -> None:
    w = torch.tensor([1.0, -2.0]) + noise(40, 2) @ torch.tensor([[0.6, 0.0], [0.4, 0.3]]).double()
    x = noise(40, 6, 2, number=1)
    data = Data.of(x, (x @ w[..., None])[..., 0] + 0.7 * noise(40, 6, number=2))
    prior = from_pyro(line).fit(data, hyperprior_weight=0.0, progress=False, generator=seed(3))

    def evidence(loc: torch.Tensor, cov: torch.Tensor) -> LinearGaussian:
        return LinearGaussian(loc, torch.linalg.inv(cov), torch.tensor(0.49).double())

    loc, cov = prior.loc, prior.scale_tril @ prior.scale_tril.mT
    found = evidence(loc, cov).log_evidence(data).sum()
    for _ in range(30):  # EM in closed form from there
        exact = evidence(loc, cov).condition(data)
        loc = exact.loc.mean(0)
        apart = exact.loc - loc
        cov = (torch.linalg.inv(exact.precision) + apart[:, :, None] * apart[:, None]).mean(0)
    assert float(evidence(loc, cov).log_evidence(data).sum() - found) < 1.5  # of 240 rows


def test_the_hyperprior_draws_towards_the_model() -> None:
    """With two tasks alike, plain evidence has no spread at all; the model's own prior says that there is some."""
    data = Data.of(None, torch.tensor([[1.0, 1.2], [1.1, 1.1]]).double())
    prior = from_pyro(normal).fit(data, progress=False, generator=seed(0))
    sd = float(prior.scale_tril)
    assert 0.05 < sd < 3.0


def test_a_learned_prior_helps_a_short_data_set() -> None:
    w = torch.tensor([2.0, -1.0]).double() + 0.3 * noise(80, 2)
    x = noise(80, 30, 2, number=1)
    uniform = torch.rand(80, 30, generator=seed(2), dtype=torch.float64)
    data = Data.of(x, (uniform < (x @ w[..., None])[..., 0].sigmoid()).double())
    model = from_pyro(logistic, num_draws=250)
    prior = model.fit(data[:60], progress=False, generator=seed(3))
    short, truth = data[60:].rows(slice(3)), w[60:]
    errors = [
        (start.condition(short).params["w"].mean((0, 1)) - truth).square().sum(-1)
        for start in (prior, model.initial(data))
    ]
    gain = errors[1] - errors[0]
    assert float(gain.mean()) > 0.0
    assert abs(float(prior.loc[0]) - 2.0) < 5.0 * 0.4 / 60**0.5 + 0.1
