"""Every draw from an explicit generator. `torch.distributions` accepts none, so the primitives are here."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

__all__ = ["categorical", "gamma", "log_gamma", "rand", "randint", "randn", "seeded", "wishart_tril", "within_floats"]

LARGEST_VARIANCE = 0.9  # of a draw, as a power of the largest number of a dtype: room for what it is multiplied by


def randn(shape: Sequence[int], *, like: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard normal draws with the dtype and device of `like`."""
    return torch.randn(tuple(shape), dtype=like.dtype, device=like.device, generator=generator)


def rand(shape: Sequence[int], *, like: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform draws on [0, 1) with the dtype and device of `like`."""
    return torch.rand(tuple(shape), dtype=like.dtype, device=like.device, generator=generator)


def randint(high: int, shape: Sequence[int], *, generator: Generator) -> Tensor:
    """Whole numbers below `high`, on the device of the generator."""
    return torch.randint(high, tuple(shape), generator=generator, device=generator.device)


def gamma(shape: Sequence[int], concentration: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Gamma(concentration, 1) draws of shape `(*shape, *concentration.shape)`."""
    return torch._standard_gamma(concentration.expand(*shape, *concentration.shape).contiguous(), generator=generator)


def log_gamma(shape: Sequence[int], concentration: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Logarithms of Gamma(concentration, 1) draws, which for a small concentration would underflow to zero.

    If G has concentration a + 1 and U is uniform, then G U^(1/a) has concentration a.

    Source: Marsaglia and Tsang, A simple method for generating gamma variables (2000), section 6.
    """
    more = gamma(shape, concentration + 1.0, generator=generator).log()
    uniform = rand(more.shape, like=concentration, generator=generator)
    return more + torch.log1p(-uniform) / concentration


def within_floats(log_var: Tensor) -> Tensor:
    """Logarithms of variances, those beyond the floats of their dtype at what these hold: draws of them stay numbers.

    Under a prior with next to no degrees of freedom such variances are as probable as not.
    """
    return log_var.clamp(max=LARGEST_VARIANCE * math.log(torch.finfo(log_var.dtype).max))


def categorical(num_draws: int, logits: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Indices `(num_draws, *batch)` drawn with probabilities softmax(logits) over the last axis."""
    probs = logits.softmax(-1)
    flat = probs.reshape(-1, probs.shape[-1])
    drawn = torch.multinomial(flat, num_draws, replacement=True, generator=generator)
    return drawn.mT.reshape(num_draws, *logits.shape[:-1])


def wishart_tril(
    shape: Sequence[int],
    df: Tensor,
    dim: int,
    *,
    dtype: torch.dtype | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Lower factors A of standard Wishart draws $A A^\top \sim W(df, I)$, shape `(*shape, *df.shape, dim, dim)`.

    Bartlett's decomposition: squared diagonal entry i is chi-squared with df - i degrees of freedom, the entries
    below the diagonal are standard normal.

    Args:
        shape: of the draws.
        df: above dim - 1.
        dim: of the matrices.
        dtype: in whose floats the inverse of a draw has to stay; by default that of `df`.

    Source: Anderson, An Introduction to Multivariate Statistical Analysis, 3rd ed. (2003), section 7.2.
    """
    degrees = df[..., None] - torch.arange(dim, dtype=df.dtype, device=df.device)
    # a root is divided by, and may not be so small that a variance leaves the floats
    least = torch.finfo(dtype or df.dtype).max ** (-0.5 * LARGEST_VARIANCE)
    diagonal = (2.0 * gamma(shape, degrees / 2.0, generator=generator)).sqrt().clamp(min=least)
    below = randn((*diagonal.shape, dim), like=df, generator=generator).tril(-1)
    return below + torch.diag_embed(diagonal)


@contextmanager
def seeded(generator: Generator | None) -> Iterator[None]:
    """Run code that draws from torch's global stream (Pyro, `Distribution.sample`) under `generator`.

    The global streams of the CPU, and of the generator's device, are put back afterwards; with None they are used as
    they are.
    """
    if generator is None:
        yield
        return
    device = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
