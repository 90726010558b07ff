"""Posteriors to show BoTorch: one that BoTorch's own Gaussian process can be set to, and those it has no model for."""

from collections.abc import Callable
from functools import cache

import torch
from botorch.models import SingleTaskGP
from gpytorch.kernels import Kernel, LinearKernel, MaternKernel, ScaleKernel
from gpytorch.means import ZeroMean
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, Mixture, transfer_hypotheses
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, seed

NOISE_VAR = 0.1
WEIGHT_VAR = 0.7
LENGTHSCALE = torch.tensor([0.3, 0.5, 1.0]).double()

LINEAR = bm.LinearGaussian(torch.zeros(3).double(), torch.eye(3).double() / WEIGHT_VAR, F64 + NOISE_VAR)
PROCESS = bm.GaussianProcess(LENGTHSCALE, F64 + WEIGHT_VAR, F64 + NOISE_VAR)


def rows(n: int = 6, number: int = 0, num_inputs: int = 3) -> Data:
    x = rand((n, num_inputs), like=F64, generator=seed(number))
    return Data.of(x, torch.sin(5 * x[:, 0]) + x[:, -1])


def points(*shape: int, number: int = 1, num_inputs: int = 3) -> Tensor:
    return rand((*shape, num_inputs), like=F64, generator=seed(number))


def linear_kernel() -> Kernel:
    """Regression with Gaussian weights is a Gaussian process with this kernel."""
    kernel = LinearKernel().double()
    kernel.variance = WEIGHT_VAR
    return kernel


def matern_kernel() -> Kernel:
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=3)).double()
    kernel.outputscale = WEIGHT_VAR
    kernel.base_kernel.lengthscale = LENGTHSCALE
    return kernel


def botorchs_own(kernel: Kernel, data: Data) -> SingleTaskGP:
    noise = torch.full((len(data.y), 1), NOISE_VAR, dtype=torch.float64)
    modules = {"covar_module": kernel, "mean_module": ZeroMean(), "outcome_transform": None}
    return SingleTaskGP(data.x, data.y[:, None], noise, **modules).eval()


@cache
def learned() -> bm.GaussianProcess:
    """Of two inputs, with the mean and directions of six past functions."""
    generator = seed(7)
    x = rand((6, 12, 2), like=F64, generator=generator)
    peak = 0.5 + 0.15 * randn((6, 1, 2), like=F64, generator=generator)
    noise = 0.05 * randn((6, 12), like=F64, generator=generator)
    tasks = Data.of(x, -4.0 * (x - peak).square().sum(-1) + 0.3 * torch.sin(6 * x[..., 0]) + noise)
    return bm.GaussianProcess.initial(tasks).fit(tasks)


def some_hypotheses() -> Mixture:
    """Three levels of noise and of smoothness, of two inputs."""
    lengthscale = torch.tensor([[0.2], [0.5], [1.0]]).double() * torch.ones(2).double()
    processes = bm.GaussianProcess(lengthscale, F64 + 1.0, torch.tensor([0.01, 0.1, 0.3]).double())
    return Mixture(processes, torch.tensor([0.5, 0.3, 0.2]).double().log())


# of two inputs each
PRIORS: dict[str, Callable[[], bm.protocol.Joint]] = {
    "gaussian_process": lambda: bm.GaussianProcess(LENGTHSCALE[:2], F64 + WEIGHT_VAR, F64 + NOISE_VAR),
    "learned": learned,
    "learned_features": lambda: FAMILIES["learned_features"].prior,
    "linear_gaussian": lambda: bm.LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + NOISE_VAR),
    "mixture": some_hypotheses,
    "transfer_hypotheses": lambda: transfer_hypotheses(learned()),
}
