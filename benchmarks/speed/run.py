"""Did something become slow? Time and memory of the hot paths, each beside a named baseline, on one thread.

    python -m benchmarks.speed --budget quick|full --out FILE

A section is a function from the budget to figures: add one to SECTIONS. A section whose baseline is not installed says
`make bench-setup` and is left out.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bayesmeta import Data, NormalInverseWishart
from bayesmeta.random import randn
from benchmarks.report import Figure, MissingPeerError, environment, write_json
from benchmarks.speed import kernels
from benchmarks.speed.stream import stream_a_table

PACKAGES = ["bayesmeta", "torch", "numpy", "scipy", "polars", "conjugate-models"]


@dataclass(frozen=True)
class Budget:
    """How often to repeat: `pairs` of ours and the baseline's time, `inner` of ours in each; `streams` of a table;
    `kernels` on many small tasks."""

    pairs: int
    inner: int
    streams: int
    kernels: int


BUDGETS = {
    "quick": Budget(pairs=5, inner=7, streams=1, kernels=3),
    "full": Budget(pairs=31, inner=15, streams=5, kernels=31),
}


def niw_against_a_loop(budget: Budget) -> list[Figure]:
    """Condition 10,000 tasks of 20 rows in 5 dimensions at once, against conjugate-models task by task."""
    try:
        from conjugate.distributions import NormalInverseWishart as PeerPrior
        from conjugate.models import multivariate_normal
    except ImportError as error:
        raise MissingPeerError("conjugate-models is not installed; make bench-setup installs it") from error
    prior, y = _niw_prior(), _niw_rows(10_000)
    data, rows = Data.of(None, y, event_dim=1), y.numpy()
    peer = PeerPrior(mu=prior.loc.numpy(), kappa=1.0, nu=7.0, psi=prior.scatter.numpy())

    def loop() -> list[object]:
        return [multivariate_normal(X=task, prior=peer) for task in rows]

    first, ours = loop()[0], prior.condition(data)
    torch.testing.assert_close(torch.as_tensor(first.psi), ours.scatter[0])  # type: ignore[attr-defined]
    ratios, with_checks, seconds = [], [], []
    for _ in range(budget.pairs):
        slow = timed(loop)
        seconds.append(statistics.median(timed(lambda: prior.condition(data)) for _ in range(budget.inner)))
        checked = statistics.median(
            timed(lambda: prior.condition(Data.of(None, y, event_dim=1))) for _ in range(budget.inner)
        )
        ratios.append(slow / seconds[-1])
        with_checks.append(slow / checked)
    return [
        Figure("speed/niw_vs_loop", statistics.median(ratios), "condition, times faster than a loop"),
        Figure("speed/niw_checked_vs_loop", statistics.median(with_checks), "the same with validation of the rows"),
        Figure("speed/niw_s", statistics.median(seconds), "condition, seconds"),
    ]


def niw_memory(budget: Budget) -> list[Figure]:
    """Peak memory of the whole of `condition`, over input plus output, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_niw_peak_over_io)
    return [Figure("speed/niw_peak_over_io", peak, "condition, peak memory over input plus output")]


def _of_kernels(section: Callable[[int], list[Figure]]) -> Callable[[Budget], list[Figure]]:
    return lambda budget: kernels.in_used_memory(section, budget.kernels)


SECTIONS: dict[str, Callable[[Budget], list[Figure]]] = {
    "Normal-Inverse-Wishart, speed": niw_against_a_loop,
    "Normal-Inverse-Wishart, memory": niw_memory,
    "A table in a stream": lambda budget: stream_a_table(budget.streams),
    "Normal-Inverse-Wishart in new memory": lambda budget: kernels.niw_in_new_memory(budget.kernels),
    **{title: _of_kernels(section) for title, section in kernels.SECTIONS.items()},
}


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _niw_prior() -> NormalInverseWishart:
    loc, one = torch.zeros(5, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return NormalInverseWishart(loc, one, 7.0 * one, torch.eye(5, dtype=torch.float64))


def _niw_rows(num_tasks: int) -> torch.Tensor:
    like = torch.zeros((), dtype=torch.float64)
    return randn((num_tasks, 20, 5), like=like, generator=torch.Generator().manual_seed(0)).add_(3.0)


def _niw_peak_over_io() -> float:
    """An upper bound: the high-water mark of the process, which its set-up may have reached before."""
    torch.set_num_threads(1)
    prior = _niw_prior()
    prior.condition(Data.of(None, _niw_rows(100), event_dim=1))  # what is loaded on first use is not counted
    y = _niw_rows(100_000)  # ten times as many tasks, so that the process's own few MB do not count
    data = Data.of(None, y, event_dim=1)
    before = _resident_bytes()
    posterior = prior.condition(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    size = y.nbytes + data.mask.nbytes
    output = sum(t.nbytes for t in (posterior.loc, posterior.pseudo_count, posterior.df, posterior.scatter))
    return (size + peak - before) / (size + output)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console, figures, left_out = Console(), [], {}
    table = Table("figure", "value", "meaning", title=f"Speed, {options.budget} budget, one thread")
    for title, section in SECTIONS.items():
        with console.status(title):
            try:
                found = section(BUDGETS[options.budget])
            except MissingPeerError as missing:
                left_out[title] = str(missing)
                table.add_row(title, "left out", str(missing))
                continue
        figures += found
        for figure in found:
            table.add_row(figure.name, f"{figure.value:.4g}", figure.meaning)
    console.print(table)
    if options.out:
        write_json(options.out, figures, environment(PACKAGES), budget=options.budget, left_out=left_out)
