"""Who samples: this package by one rung or by its ladder, and its peers. Each gives draws and its clocks."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesmeta.mcmc import Draws, sample
from benchmarks.mcmc.problems.problem import Problem
from benchmarks.report import MissingPeerError

__all__ = ["METHODS", "OURS", "Sampled", "Size"]


@dataclass(frozen=True)
class Size:
    """How much is drawn: chains of draws, and warm-up steps of peers."""

    num_chains: int = 4
    num_draws: int = 1000
    num_warmup: int = 500


@dataclass(frozen=True)
class Sampled:
    """Draws `(chains, draws, tasks, d)` of some of the tasks, and CPU-seconds.

    Args:
        seconds: of everything, compilation and warm-up too.
        sampling: of the draws that are kept, where the two can be told apart.
        draws: of this package, with its diagnostics.
    """

    position: Tensor
    seconds: float
    sampling: float
    draws: Draws | None = None


Method = Callable[[Problem, Size, int], Sampled]


def ours(*ladder: str) -> Method:
    """This package by the rungs that are named."""

    def method(problem: Problem, size: Size, seed: int) -> Sampled:
        g = torch.Generator().manual_seed(seed)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = sample(
                problem.targets,
                num_draws=size.num_draws,
                num_chains=size.num_chains,
                ladder=ladder,
                progress=False,
                generator=g,
            )
        seconds = time.process_time() - start
        return Sampled(draws.position, seconds, seconds, draws)

    return method


def blackjax(problem: Problem, size: Size, seed: int) -> Sampled:
    """NUTS with window adaptation, under vmap over the chains of ten times as many tasks as the loops are given."""
    try:
        import blackjax as bj
        import jax
    except ImportError as error:
        raise MissingPeerError("blackjax") from error
    jax.config.update("jax_enable_x64", True)
    density = problem.jax_density
    assert density is not None
    tasks = min(10 * problem.num_peers, len(next(iter(problem.arrays.values()))))
    arrays = {name: jax.numpy.asarray(value[:tasks]) for name, value in problem.arrays.items()}

    def chain(key, start, data):  # type: ignore[no-untyped-def]
        def log_density(position):  # type: ignore[no-untyped-def]
            return density(position, **data)

        first, second = jax.random.split(key)
        adapting = bj.window_adaptation(bj.nuts, log_density)
        (state, parameters), _ = adapting.run(first, start, num_steps=size.num_warmup)
        kernel = bj.nuts(log_density, **parameters).step
        return state, parameters, second, kernel

    def warm(key, start, data):  # type: ignore[no-untyped-def]
        state, parameters, second, _ = chain(key, start, data)
        return state, parameters, second

    def draw(state, parameters, key, data):  # type: ignore[no-untyped-def]
        kernel = bj.nuts(lambda position: density(position, **data), **parameters).step

        def step(state, key):  # type: ignore[no-untyped-def]
            state, _ = kernel(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(key, size.num_draws))[1]

    keys = jax.random.split(jax.random.PRNGKey(seed), tasks * size.num_chains).reshape(tasks, size.num_chains, 2)
    starts = 0.1 * jax.random.normal(jax.random.PRNGKey(seed + 1), (tasks, size.num_chains, problem.dim))
    over = dict.fromkeys(arrays, 0)
    warm_all = jax.jit(jax.vmap(jax.vmap(warm, (0, 0, None)), (0, 0, over)))
    draw_all = jax.jit(jax.vmap(jax.vmap(draw, (0, 0, 0, None)), (0, 0, 0, over)))
    start = time.process_time()
    warmed = jax.block_until_ready(warm_all(keys, starts, arrays))
    compiled = draw_all.lower(*warmed, arrays).compile()
    middle = time.process_time()
    position = np.asarray(jax.block_until_ready(compiled(*warmed, arrays)))  # (tasks, chains, draws, d)
    end = time.process_time()
    return Sampled(torch.from_numpy(position).permute(1, 2, 0, 3), end - start, end - middle)


def numpyro(problem: Problem, size: Size, seed: int) -> Sampled:
    """NUTS, one task after the other, chains vectorised."""
    try:
        import jax
        from numpyro.infer import MCMC, NUTS
    except ImportError as error:
        raise MissingPeerError("numpyro") from error
    jax.config.update("jax_enable_x64", True)
    density = problem.jax_density
    assert density is not None
    found, sampling = [], 0.0
    start = time.process_time()

    def potential(**data):  # type: ignore[no-untyped-def]
        return lambda position: -density(position, **data)

    for task in range(problem.num_peers):
        data = {name: jax.numpy.asarray(value[task]) for name, value in problem.arrays.items()}
        kernel = NUTS(potential_fn=potential(**data))
        run = MCMC(
            kernel,
            num_warmup=size.num_warmup,
            num_samples=size.num_draws,
            num_chains=size.num_chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        key = jax.random.PRNGKey(seed + task)
        first = 0.1 * jax.random.normal(key, (size.num_chains, problem.dim))
        run.warmup(key, init_params=first)
        middle = time.process_time()
        run.run(run.post_warmup_state.rng_key)
        found.append(np.asarray(run.get_samples(group_by_chain=True)))
        sampling += time.process_time() - middle
    position = torch.from_numpy(np.stack(found, 2))
    return Sampled(position, time.process_time() - start, sampling)


def pyro_nuts(problem: Problem, size: Size, seed: int) -> Sampled:
    """Pyro's NUTS, one task and one chain after the other, a few tasks."""
    import pyro
    from pyro.infer import MCMC, NUTS

    model = problem.pyro_model
    assert model is not None
    few = max(1, problem.num_peers // 5)
    found = []
    start = time.process_time()
    for task in range(few):
        data = {name: torch.from_numpy(value[task]) for name, value in problem.arrays.items()}
        pyro.set_rng_seed(seed + task)
        chains = []
        for _ in range(size.num_chains):
            kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
            run = MCMC(kernel, num_samples=size.num_draws, warmup_steps=size.num_warmup, disable_progbar=True)
            run.run(**data)
            chains.append(run.get_samples()["w"])
        found.append(torch.stack(chains))
    seconds = time.process_time() - start
    return Sampled(torch.stack(found, 2), seconds, seconds)


def nutpie(problem: Problem, size: Size, seed: int) -> Sampled:
    """nutpie on the same density by JAX, one task after the other, compiled once."""
    try:
        import jax
        import nutpie as peer
        from nutpie import compiled_pyfunc
    except ImportError as error:
        raise MissingPeerError("nutpie") from error
    jax.config.update("jax_enable_x64", True)
    density = problem.jax_density
    assert density is not None
    start = time.process_time()
    both = jax.jit(jax.value_and_grad(lambda position, data: density(position, **data)))
    one = {name: jax.numpy.asarray(value[0]) for name, value in problem.arrays.items()}
    jax.block_until_ready(both(jax.numpy.zeros(problem.dim), one))
    found, sampling = [], 0.0
    for task in range(problem.num_peers):
        data = {name: jax.numpy.asarray(value[task]) for name, value in problem.arrays.items()}

        def make_logp(data=data):  # type: ignore[no-untyped-def]
            def logp(position):  # type: ignore[no-untyped-def]
                value, slope = both(position, data)
                return float(value), np.asarray(slope)

            return logp

        model = compiled_pyfunc.from_pyfunc(
            problem.dim,
            make_logp,
            lambda *arguments: lambda position: {"w": position},
            [np.dtype("float64")],
            [(problem.dim,)],
            ["w"],
        )
        middle = time.process_time()
        trace = peer.sample(
            model,
            draws=size.num_draws,
            tune=size.num_warmup,
            chains=size.num_chains,
            cores=1,
            seed=seed + task,
            progress_bar=False,
        )
        sampling += time.process_time() - middle
        found.append(np.asarray(trace.posterior["w"]))
    return Sampled(torch.from_numpy(np.stack(found, 2)), time.process_time() - start, sampling)


OURS = {
    "ladder": ours("laplace_t", "several_starts", "tempered", "gradients"),
    "laplace_t": ours("laplace_t"),
    "multi_start_laplace_t": ours("several_starts"),
    "gradients": ours("gradients"),
}
METHODS: dict[str, Method] = {
    **OURS,
    "blackjax": blackjax,
    "numpyro": numpyro,
    "nutpie": nutpie,
    "pyro": pyro_nuts,
}
