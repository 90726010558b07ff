"""NUTS over hyperparameters: held to quadrature, and to the draws of the hyperposterior."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.hyperparameters.hyperposterior import Hyperposterior
from bayesmeta.mcmc.full_bayes import sample_posterior
from bayesmeta.random import randn
from tests.bayesmeta.hyperparameters.test_hyperposterior import INITIAL, TASKS, quadrature
from tests.families import F64, seed


@pytest.mark.slow
def test_chains_agree_with_quadrature() -> None:
    idata = sample_posterior(
        INITIAL, TASKS, num_draws=600, num_warmup=150, num_chains=2, progress=False, generator=seed(0)
    )
    import arviz

    assert float(arviz.rhat(idata)["successes"]) < 1.05
    draws = idata.posterior
    logit = torch.as_tensor((draws["successes"] / draws["failures"]).values).log()
    log_total = torch.as_tensor((draws["successes"] + draws["failures"]).values).log()
    for values, expected in zip((logit, log_total), quadrature(TASKS), strict=True):
        ess = float(arviz.ess(values.numpy()))
        assert abs(values.mean().item() - expected) < 5 * values.std().item() / ess**0.5


@pytest.mark.slow
def test_inference_data_has_tasks_by_name() -> None:
    tasks = Data.of(None, randn((5, 6), like=F64, generator=seed(1)) + randn((5, 1), like=F64, generator=seed(2)))
    initial = bm.NormalInverseGamma.initial(tasks)
    names = ["a", "b", "c", "d", "e"]
    idata = sample_posterior(
        initial, tasks, num_draws=200, num_warmup=100, num_chains=1, task_names=names, progress=False, generator=seed(3)
    )
    assert idata.posterior["task_mean"].dims == ("chain", "draw", "task")
    assert list(idata.posterior["task"].values) == names
    assert idata.log_likelihood["task_evidence"].shape == (1, 200, 5)
    hyperposterior = Hyperposterior.fit(initial, tasks, num_draws=4000, generator=seed(4))
    means = hyperposterior.unknown.build(hyperposterior.draws[:, None]).condition(tasks).loc
    each = hyperposterior.log_weights.exp() @ means
    found = torch.as_tensor(idata.posterior["task_mean"].values)[0]
    assert ((found.mean(0) - each).abs() < 5 * found.std(0) / 100**0.5).all()


@pytest.mark.slow
def test_a_hyperprior_may_be_given() -> None:
    def tight(vector: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((vector - torch.tensor([1.0, 2.0], dtype=torch.float64)) / 0.001).square().sum(-1)

    idata = sample_posterior(
        INITIAL,
        TASKS,
        num_draws=50,
        num_warmup=50,
        num_chains=1,
        log_hyperprior=tight,
        progress=False,
        generator=seed(0),
    )
    total = idata.posterior["successes"] + idata.posterior["failures"]
    assert float(total.mean()) == pytest.approx(torch.tensor(2.0).exp().item(), rel=0.01)
