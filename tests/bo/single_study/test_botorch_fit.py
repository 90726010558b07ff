"""The fast fit of BoTorch's model is held to BoTorch's own loss and to its own fit."""

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.optim.closures import get_loss_closure_with_grads
from gpytorch.mlls import ExactMarginalLogLikelihood

from bo.single_study.botorch_fit import fit_single_task_gp
from tests.seeds import seed


def model(n: int, d: int, number: int) -> SingleTaskGP:
    generator = seed(number)
    x = torch.rand(n, d, generator=generator, dtype=torch.float64)
    y = (6.0 * x[:, 0]).sin() + x[:, 1] ** 2 + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    return SingleTaskGP(x, ((y - y.mean()) / y.std())[:, None], outcome_transform=None)


def botorch_loss(fitted: SingleTaskGP) -> tuple[float, dict[str, torch.Tensor]]:
    mll = ExactMarginalLogLikelihood(fitted.likelihood, fitted).train()
    parameters = dict(mll.named_parameters())
    loss, _ = get_loss_closure_with_grads(mll, parameters)()
    return loss.item(), {name: p.grad for name, p in parameters.items() if p.grad is not None}


@pytest.mark.filterwarnings("ignore")  # BoTorch's own fit may warn of its line search
@pytest.mark.parametrize("n", [6, 20, 40])
def test_no_worse_than_the_fit_of_botorch(n: int) -> None:
    theirs, ours = model(n, 4, n), model(n, 4, n)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(theirs.likelihood, theirs))
    fit_single_task_gp(ours)
    assert botorch_loss(ours)[0] <= botorch_loss(theirs)[0] + 1e-6


def test_ends_where_the_loss_of_botorch_is_flat() -> None:
    fitted = fit_single_task_gp(model(30, 3, 0))
    noise, scale = fitted.likelihood.noise.detach(), fitted.covar_module.lengthscale.detach()
    _, gradients = botorch_loss(fitted)
    # by logarithms, in which the search is: at a bound the gradient may point outwards;
    # on a scale of logarithms about log(1e-6) +- 1.5
    assert noise > 2e-4
    assert (gradients["likelihood.noise_covar.raw_noise"] * noise).abs().max() < 1e-3
    assert (gradients["model.covar_module.raw_lengthscale"] * scale).abs().max() < 1e-3
    assert gradients["model.mean_module.raw_constant"].abs() < 1e-3
