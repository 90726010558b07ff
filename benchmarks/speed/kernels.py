"""How near are batched kernels to their bound? Bytes and flops per task, at the measured rates of a copy and of a GEMM.

The bound of a kernel is the longer of two times: that of copying what it has to read and to write once, and that of
its arithmetic at the rate of a large product of matrices. Times are CPU seconds of one thread, the least of many:
neighbours on a shared machine only ever add to them. Both sides work in memory that the process has used before: what a
page costs that is new to it depends on the system, and is a figure of its own.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

import bayesmeta as bm
from bayesmeta import Data, Statistics
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.random import randn
from benchmarks.report import Figure

__all__ = ["SECTIONS", "in_used_memory"]

TASKS = 100_000
MATRICES = 50_000
DIM = 5
GEMM = 1024  # columns
COPY = 64 << 20  # bytes
F64 = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Kernel:
    """A call on many tasks: what it has to read and to write, and multiplications and additions per task."""

    name: str
    call: Callable[[], object]
    reads: Sequence[Tensor]
    writes: Sequence[Tensor]
    flops: int

    @property
    def num_tasks(self) -> int:
        return len(self.reads[0])

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.reads, *self.writes))


# glibc gives large blocks back to the system as soon as they are free, unless told otherwise
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 34)}


def in_used_memory(section: Callable[[int], list[Figure]], repeats: int) -> list[Figure]:
    """`section(repeats)` in a process that keeps the memory it has freed."""
    before = {name: os.environ.get(name) for name in KEEP_MEMORY}
    os.environ.update(KEEP_MEMORY)
    try:
        with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
            return pool.apply(section, (repeats,))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def niw_over_a_copy(repeats: int, *, fused: bool = False, tasks: int = TASKS) -> list[Figure]:
    """Normal-Inverse-Wishart from rows to posterior and log evidence, over a copy of rows, posterior and evidence."""
    cases = [("", torch.float64, 20)]
    if not fused:
        cases += [("_float32", torch.float32, 20), ("_5_rows", torch.float64, 5)]
    figures = []
    with bm.compiled() if fused else nullcontext():
        for suffix, dtype, n in cases:
            whole, *parts = _niw(tasks, n, dtype)
            copy = _copy_seconds(whole.num_bytes, repeats)
            name = f"speed/niw_over_copy_bound{suffix}{'_compiled' if fused else ''}"
            meaning = f"condition and evidence of {tasks} tasks of {n} rows, times a copy of {copy:.2g} s"
            figures.append(Figure(name, _least(whole.call, repeats) / copy, meaning))
            figures += [Figure(f"{name}/{part.name}", _least(part.call, repeats) / copy, "of which") for part in parts]
    return figures


def niw_in_new_memory(repeats: int, *, tasks: int = TASKS) -> list[Figure]:
    """The same where each result and each copy lies in memory that is new to the process, as by default."""
    whole, *_ = _niw(tasks, 20, torch.float64)
    source = torch.ones(whole.num_bytes // 8, dtype=torch.float64)
    ratio = _least(whole.call, repeats) / _least(source.clone, repeats)
    return [Figure("speed/niw_over_copy_bound_new_memory", ratio, "condition and evidence, times `clone`")]


def cholesky_against_torch(repeats: int, *, matrices: int = MATRICES) -> list[Figure]:
    """Factors of many small matrices, tasks last in memory, against `torch.linalg.cholesky_ex` of each on its own."""
    figures = []
    for d, dtype in ((20, torch.float32), *((d, t) for d in (8, 5) for t in (torch.float32, torch.float64))):
        matrix, tasks_last = _positive_definite(matrices, d, dtype)
        torch.testing.assert_close(cholesky(tasks_last, "matrix"), torch.linalg.cholesky_ex(matrix).L)
        ours, theirs = _factorise(tasks_last), _least(lambda m=matrix: torch.linalg.cholesky_ex(m), repeats)
        name = "speed/cholesky_vs_torch" + ("" if d == 20 else f"/{d}_{_short(dtype)}")
        meaning = f"{matrices} matrices of {d} columns in {_short(dtype)}, times faster than cholesky_ex"
        figures.append(Figure(name, theirs / _least(ours, repeats), meaning))
    return figures


def fits(repeats: int) -> list[Figure]:
    """From rows to a learned prior."""
    generator = torch.Generator().manual_seed(0)
    groups, tasks = _groups(10_000, generator), _rows(2000, 20, torch.float64, generator)
    found = [
        ("niw", lambda: bm.NormalInverseWishart.initial(tasks).fit(tasks), "2000 tasks of 20 rows in 5 dimensions"),
        ("dirichlet", lambda: bm.DirichletCategorical.initial(groups).fit(groups), "10,000 groups of 10 categories"),
    ]
    return [Figure(f"speed/{name}_fit_s", _least(call, repeats), f"CPU seconds, {what}") for name, call, what in found]


def over_bounds(repeats: int, *, tasks: int = TASKS) -> list[Figure]:
    """How many times its bound each kernel takes, and the rates that the bounds are made of."""
    copy = COPY / _copy_seconds(COPY, repeats)
    gemm = {dtype: _gemm_rate(dtype, repeats) for dtype in (torch.float32, torch.float64)}
    figures = [Figure("bound/copy_gb_s", copy / 1e9, "10^9 bytes copied in a second")]
    for dtype, rate in gemm.items():
        figures.append(Figure(f"bound/gemm_gflop_s/{_short(dtype)}", rate / 1e9, f"product of {GEMM} x {GEMM}"))
    for kernel in _kernels(tasks):
        by_bytes = kernel.num_bytes / copy
        by_flops = kernel.flops * kernel.num_tasks / gemm[kernel.reads[0].dtype]
        seconds, bound = _least(kernel.call, repeats), max(by_bytes, by_flops)
        meaning = (
            f"per task {kernel.num_bytes / kernel.num_tasks:.0f} bytes = {_ns(by_bytes, kernel)}, "
            f"{kernel.flops} flops = {_ns(by_flops, kernel)}, measured {_ns(seconds, kernel)}"
        )
        figures.append(Figure(f"bound/{kernel.name}", seconds / bound, meaning))
    return figures


SECTIONS: dict[str, Callable[[int], list[Figure]]] = {
    "Normal-Inverse-Wishart over a copy": niw_over_a_copy,
    "The same, fused": partial(niw_over_a_copy, fused=True),
    "Cholesky": cholesky_against_torch,
    "Learning": fits,
    "Kernels over their bounds": over_bounds,
}


def _kernels(tasks: int) -> list[Kernel]:
    _, *kernels = _niw(tasks, 20, torch.float64)
    kernels += _linear(tasks, 20)
    for d, dtype in ((5, torch.float64), (8, torch.float32), (20, torch.float32)):
        _, matrix = _positive_definite(tasks // 2, d, dtype)
        kernels.append(Kernel(f"cholesky_{d}_{_short(dtype)}", _factorise(matrix), [matrix], [matrix], d**3 // 3))
    return kernels


def _niw(tasks: int, n: int, dtype: torch.dtype) -> list[Kernel]:
    """The whole of it first, then its parts."""
    data = _rows(tasks, n, dtype, torch.Generator().manual_seed(0))
    prior = bm.NormalInverseWishart.initial(data[:1000])
    stats, evidence = Statistics.of(data), prior.log_evidence(data)
    posterior = prior.condition(stats)
    fields = [posterior.loc, posterior.pseudo_count, posterior.df, posterior.scatter]
    moments = _moments(stats)

    def whole() -> None:
        reduced = Statistics.of(data)
        prior.condition(reduced)
        prior.log_evidence(reduced)

    d, rows = DIM, [data.y, data.mask]
    reduce = n * (2 * d + d * (d + 1))
    update, factorise = 3 * d + d * (d + 1), d**3 // 3
    return [
        Kernel("niw", whole, rows, [*fields, evidence], reduce + 2 * update + factorise),
        Kernel("niw_statistics", lambda: Statistics.of(data), rows, moments, reduce),
        Kernel("niw_condition", lambda: prior.condition(stats), moments, fields, update),
        Kernel("niw_evidence", lambda: prior.log_evidence(stats), moments, [evidence], update + factorise),
    ]


def _linear(tasks: int, n: int) -> list[Kernel]:
    generator = torch.Generator().manual_seed(0)
    x = randn((tasks, n, DIM), like=F64, generator=generator)
    data = Data.of(x, x.sum(-1) + randn((tasks, n), like=F64, generator=generator))
    prior = bm.LinearGaussian.initial(data[:1000])
    stats, evidence = Statistics.of(data), prior.log_evidence(data[:1000]).new_empty(tasks)
    posterior, d = prior.condition(stats), DIM
    moments, fields = _moments(stats), [posterior.loc, posterior.precision]
    k = d + 1
    solve = d**3 // 3 + 6 * d**2
    return [
        Kernel(
            "linear_statistics", lambda: Statistics.of(data), [x, data.y, data.mask], moments, n * (2 * k + k * (k + 1))
        ),
        Kernel("linear_condition", lambda: prior.condition(stats), moments, fields, solve),
        Kernel("linear_evidence", lambda: prior.log_evidence(stats), moments, [evidence], solve + d**3 // 3 + 8 * d**2),
    ]


def _rows(tasks: int, n: int, dtype: torch.dtype, generator: Generator) -> Data:
    """Means and spreads that differ between tasks."""
    like = F64.to(dtype)
    spread = 0.5 + randn((tasks, 1, DIM), like=like, generator=generator).square()
    mean = randn((tasks, 1, DIM), like=like, generator=generator)
    return Data.of(None, mean + spread * randn((tasks, n, DIM), like=like, generator=generator), event_dim=1)


def _groups(groups: int, generator: Generator) -> Data:
    """Thirty rows of ten categories, whose shares differ between groups."""
    truth = bm.DirichletCategorical(torch.linspace(0.5, 3.0, 10, dtype=torch.float64))
    shares = truth.sample(groups, generator=generator)(None)[:, 0]
    return Data.of(None, bm.one_hot(shares.multinomial(30, True, generator=generator), 10), event_dim=1)


def _positive_definite(matrices: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same matrices twice: each on its own in memory, and the task as the last axis in memory."""
    root = randn((matrices, d, d + 2), like=F64.to(dtype), generator=torch.Generator().manual_seed(0))
    matrix = root @ root.mT + torch.eye(d, dtype=dtype)
    return matrix, matrix.movedim(0, -1).contiguous().movedim(-1, 0)


def _factorise(matrix: Tensor) -> Callable[[], object]:
    return lambda: cholesky(matrix, "matrix")


def _moments(stats: Statistics) -> list[Tensor]:
    return [stats.count, stats.origin, stats.first, *([] if stats.second is None else [stats.second])]


def _copy_seconds(num_bytes: int, repeats: int) -> float:
    source = torch.ones(num_bytes // 8, dtype=torch.float64)  # zeros would all be one page, in cache
    target = source.clone()
    return _least(lambda: target.copy_(source), repeats)


def _gemm_rate(dtype: torch.dtype, repeats: int) -> float:
    """Multiplications and additions in a second."""
    a = randn((GEMM, GEMM), like=F64.to(dtype), generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(a)
    return 2 * GEMM**3 / _least(lambda: torch.mm(a, a, out=out), repeats)


def _least(call: Callable[[], object], repeats: int) -> float:
    """CPU seconds of this thread: the least of some calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        call()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def _ns(seconds: float, kernel: Kernel) -> str:
    return f"{1e9 * seconds / kernel.num_tasks:.0f} ns"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
