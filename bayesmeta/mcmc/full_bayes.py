"""Full Bayes over hyperparameters, for any family: Pyro's NUTS on the hyperposterior, tasks integrated out.

The chain moves in the few hyperparameters only, since a closed form has integrated the parameters of the tasks out: no
funnel, and a cost per step that is one evidence and its gradient. Parameters of tasks are drawn exactly, given each
draw of the hyperparameters.

Source: Hoffman and Gelman, The No-U-Turn sampler (2014); Phan et al., Composable effects for flexible and accelerated
probabilistic programming in NumPyro and Pyro (2019).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.doors import counted, require_hierarchical
from bayesmeta.hyperparameters.hyperposterior import laplace
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameters
from bayesmeta.named_fields import named_tensors
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.protocol import Density
from bayesmeta.random import randn, seeded

if TYPE_CHECKING:
    import arviz

__all__ = ["sample_posterior"]

MIN_DRAWS = 4  # of a chain: with fewer Pyro's diagnostics, which say where it diverged, are not defined


@counted(num_draws=MIN_DRAWS, num_warmup=1, num_chains=1)
@with_gradients
def sample_posterior(
    prior: Hierarchical,
    tasks: Data | Statistics,
    *,
    num_draws: int = 1000,
    num_warmup: int = 300,
    num_chains: int = 4,
    task_names: Sequence[Any] | None = None,
    log_hyperprior: Callable[[Tensor], Tensor] | None = None,
    progress: bool = True,
    generator: Generator | None = None,
) -> "arviz.InferenceData":
    """Draw hyperparameters and the parameters of every task from their joint posterior.

    Args:
        prior: `Family.initial(tasks)`, the centre of the hyperprior; any `Hierarchical` family with a `Density`.
        tasks: at least two tasks with rows, on one axis.
        num_draws: per chain, after `num_warmup` during which the step size adapts.
        task_names: labels of the dimension `task`; numbers unless given.
        log_hyperprior: log density of vectors `(*draws, h)` of `prior.hyperparameters(tasks)`, Jacobian included, in
            place of the family's own.
        progress: show a bar while the chains run.

    Returns:
        `posterior` holds the fields of the prior by name and each task's parameters, with the dimension `task`;
        `log_likelihood` each task's evidence, so that `arviz.loo` compares priors by tasks left out; `sample_stats` the
        log density and divergences.
    """
    require_hierarchical("sample_posterior", prior)
    unknown = prior.hyperparameters(tasks)
    if log_hyperprior is not None:
        unknown = dataclasses.replace(unknown, hyperprior=log_hyperprior, source=None)
    mode = most_probable(unknown)
    root = laplace(unknown.log_density, mode, unknown.scale)
    chains = [
        _run_chain(unknown, mode, root, num_draws, num_warmup, progress and f"chain {i + 1}", generator)
        for i in range(num_chains)
    ]
    vectors = torch.stack([draws for draws, _ in chains])
    diverging = torch.stack([bad for _, bad in chains])
    return _inference_data(unknown, tasks, vectors, diverging, task_names, generator)


def _run_chain(
    unknown: Hyperparameters,
    mode: Tensor,
    root: Tensor,
    num_draws: int,
    num_warmup: int,
    title: str | bool,
    generator: Generator | None,
) -> tuple[Tensor, Tensor]:
    """Vectors of hyperparameters `(num_draws, h)` and which steps diverged, from one chain."""
    from pyro.infer import MCMC, NUTS

    # in coordinates where the Laplace approximation is standard normal, one step size fits all directions
    def potential(position: dict[str, Tensor]) -> Tensor:
        return -unknown.log_density(mode + root @ position["hyperparameters"])

    with seeded(generator):
        start = randn(mode.shape, like=mode, generator=generator)
        kernel = NUTS(potential_fn=potential, adapt_mass_matrix=True, target_accept_prob=0.9)
        run = MCMC(
            kernel,
            num_samples=num_draws,
            warmup_steps=num_warmup,
            initial_params={"hyperparameters": start},
            disable_progbar=not title,
        )
        run.run()
    whitened = run.get_samples()["hyperparameters"]
    diverging = torch.zeros(num_draws, dtype=torch.bool)
    diverging[next(iter(run.diagnostics()["divergences"].values()))] = True
    return mode + whitened @ root.mT, diverging


def _inference_data(
    unknown: Hyperparameters,
    tasks: Data | Statistics,
    vectors: Tensor,
    diverging: Tensor,
    task_names: Sequence[Any] | None,
    generator: Generator | None,
) -> "arviz.InferenceData":
    import arviz

    num_chains, num_draws, _ = vectors.shape
    with torch.no_grad():
        posterior = _named_fields(unknown.build(vectors))
        evidence = torch.cat([unknown.log_evidence(part) for part in vectors.flatten(0, 1).split(100)])
        each = _task_parameters(unknown, tasks, vectors.flatten(0, 1), generator)
        log_density = evidence.sum(-1) + unknown.log_hyperprior(vectors.flatten(0, 1))
    shape = (num_chains, num_draws)
    names = np.arange(evidence.shape[-1]) if task_names is None else np.asarray(task_names)
    posterior |= {f"task_{name}": value.reshape(*shape, *value.shape[1:]).numpy() for name, value in each.items()}
    return arviz.from_dict(
        posterior=posterior,
        log_likelihood={"task_evidence": evidence.reshape(*shape, -1).numpy()},
        sample_stats={"lp": log_density.reshape(shape).numpy(), "diverging": diverging.numpy()},
        coords={"task": names},
        dims={f"task_{name}": ["task"] for name in each} | {"task_evidence": ["task"]},
    )


def _named_fields(prior: Any) -> dict[str, np.ndarray]:
    """The tensors of a batch of priors by name, as `(chain, draw, ...)`."""
    return {name: value.detach().numpy() for name, value in named_tensors(prior).items()}


def _task_parameters(
    unknown: Hyperparameters, tasks: Data | Statistics, vectors: Tensor, generator: Generator | None
) -> dict[str, Tensor]:
    """One exact draw of each task's parameters per draw of hyperparameters: `(draws, tasks, ...)` by name."""
    parts = []
    for part in vectors.split(100):
        posterior = cast(Density, unknown.build(part[:, None, :]).condition(tasks))
        parts.append(posterior.constrain(posterior.sample_params(1, generator=generator)[0]))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
