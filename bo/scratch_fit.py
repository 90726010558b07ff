r"""BoTorch's `SingleTaskGP` fitted to the mode that BoTorch seeks, in a fraction of its time.

Model, priors, loss, bounds and starting point are BoTorch's. Its own fit differentiates through lazily evaluated
kernels, and searches over lengthscales, which are flat where an input does not matter; here the gradient is in closed
form and the search is over their logarithms as well. With $K = k(x, x; \ell) + \sigma^2 I$, $a = K^{-1} (y - c)$ and
$M = a a^\top - K^{-1}$,

$$ n \, \text{loss} = \tfrac12 (y - c)^\top a + \tfrac12 \log |K| + \tfrac n2 \log 2 \pi
   - \log p(\ell) - \log p(\sigma^2), $$

and the derivative of the first three terms by a hyperparameter $h$ of $K$ is
$-\tfrac12 \operatorname{tr}(M\, \partial K / \partial h)$.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 5.9.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import scipy.optimize
import torch

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

__all__ = ["fit_single_task_gp"]

# The loss has several modes. The search over logarithms is the faster, the direct one ends in the modes BoTorch finds.
MAX_DIRECT_STEPS = 100
CEILING = 1e6  # of lengthscales and noise

Array = np.ndarray[Any, np.dtype[np.float64]]


def fit_single_task_gp(model: "SingleTaskGP") -> "SingleTaskGP":
    """Fit, in place, a model with BoTorch's defaults and without transforms: the mode of what BoTorch maximises."""
    like = model.train_targets
    x, y = model.train_inputs[0].double().numpy(), model.train_targets.double().numpy()
    kernel, noise = model.covar_module, model.likelihood.noise_covar
    priors = [(p.loc.item(), p.scale.item()) for p in (kernel.lengthscale_prior, noise.noise_prior)]
    floors = [c.lower_bound.item() for c in (kernel.raw_lengthscale_constraint, noise.raw_noise_constraint)]
    squares = np.square(x[:, None, :] - x[None, :, :]).reshape(-1, x.shape[1])
    d = x.shape[1]
    floor = np.array([floors[0]] * d + [floors[1], -np.inf])
    start = np.concatenate([kernel.lengthscale.detach().numpy()[0], noise.noise.detach().numpy(), [0.0]])
    problem = (squares, y, priors)
    direct = _search(_loss, start, floor, CEILING, problem, max_steps=MAX_DIRECT_STEPS).x
    starts, floor, ceiling = (_to_logarithms(start), _to_logarithms(direct)), _to_logarithms(floor), math.log(CEILING)
    searches = [_search(_loss_of_logarithms, each, floor, ceiling, problem) for each in starts]
    found = _from_logarithms(min(searches, key=lambda search: search.fun).x)
    kernel.lengthscale = torch.from_numpy(found[:d]).to(like)
    noise.noise = torch.from_numpy(found[d : d + 1]).to(like)
    model.mean_module.constant = torch.tensor(found[-1]).to(like)
    return model.eval()


def _search(
    loss: Any, start: Array, floor: Array, ceiling: float, problem: Any, max_steps: int = 1000
) -> scipy.optimize.OptimizeResult:
    # a line search may leap: the priors leave nothing to find beyond the ceiling
    bounds = scipy.optimize.Bounds(floor, np.full(len(floor), ceiling))
    options = {"maxiter": max_steps}
    return scipy.optimize.minimize(loss, start, problem, jac=True, method="L-BFGS-B", bounds=bounds, options=options)


def _to_logarithms(vector: Array) -> Array:
    return np.concatenate([np.log(vector[:-1]), vector[-1:]])


def _from_logarithms(vector: Array) -> Array:
    return np.concatenate([np.exp(vector[:-1]), vector[-1:]])


def _loss_of_logarithms(vector: Array, *problem: Any) -> tuple[float, Array]:
    natural = _from_logarithms(vector)
    loss, gradient = _loss(natural, *problem)
    return loss, np.concatenate([gradient[:-1] * natural[:-1], gradient[-1:]])


def _loss(vector: Array, squares: Array, y: Array, priors: list[tuple[float, float]]) -> tuple[float, Array]:
    """Loss and gradient by lengthscales, noise and the constant."""
    n = len(y)
    scale, noise, constant = vector[:-2], vector[-2], vector[-1]
    correlation = np.exp(-0.5 * (squares @ scale**-2)).reshape(n, n)
    factor = scipy.linalg.cho_factor(correlation + noise * np.eye(n), lower=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(factor, np.eye(n), check_finite=False)
    pull = inverse @ (y - constant)
    loss = 0.5 * (y - constant) @ pull + np.log(factor[0].diagonal()).sum() + 0.5 * n * math.log(2.0 * math.pi)
    by_kernel = 0.5 * (inverse - np.outer(pull, pull))
    by_scale = ((by_kernel * correlation).ravel() @ squares) * scale**-3
    gradient = np.concatenate([by_scale, [by_kernel.trace(), -pull.sum()]])
    for part, (loc, width) in zip((slice(0, -2), slice(-2, -1)), priors, strict=True):
        value, z = vector[part], (np.log(vector[part]) - loc) / width
        loss += (0.5 * z**2 + np.log(value * width * math.sqrt(2.0 * math.pi))).sum()
        gradient[part] += (z / width + 1.0) / value
    return loss / n, gradient / n
