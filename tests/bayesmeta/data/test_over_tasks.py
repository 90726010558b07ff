"""Many small tasks: in pieces, with tasks last in memory, or fused, the answers are those of one plain call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bayesmeta.data.over_tasks
import bayesmeta.data.reduction
import bayesmeta.numerics.linalg
from bayesmeta import Data, NormalInverseWishart, Statistics
from bayesmeta.numerics.linalg import cholesky, log_det_of, solve
from bayesmeta.random import randn
from tests.families import F64, FAMILIES, seed

PRIOR: NormalInverseWishart = FAMILIES["normal_inverse_wishart"].prior
TASKS = bayesmeta.data.over_tasks.LEAST_TASKS + 7  # two full pieces and a rest


def many(tasks: int = TASKS, offset: float = 1e6) -> Data:
    """Ragged, the third empty, with pads that would show."""
    g = seed(0)
    y = randn((tasks, 4, 3), like=F64, generator=g) + offset
    mask = torch.rand(tasks, 4, generator=g) < 0.7
    mask[2] = False
    return Data(y[..., :0], y.masked_fill(~mask[..., None], -1e6), mask)


def small(data: Data) -> list[slice]:
    """The same tasks, few enough at once that nothing special is done."""
    return [slice(i, i + 900) for i in range(0, len(data.mask), 900)]


def test_moments_of_many_tasks_are_those_of_few() -> None:
    data = many()
    stats = Statistics.of(data)
    parts = [Statistics.of(data[at]) for at in small(data)]
    for name in ("count", "origin", "first", "second"):
        whole, pieces = getattr(stats, name), torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(whole, pieces, rtol=1e-10, atol=1e-8)
    assert torch.equal(stats.second, stats.second.mT)


def test_posteriors_and_evidence_of_many_tasks_are_those_of_few() -> None:
    data = many(offset=0.0)
    posterior, evidence = PRIOR.condition(data), PRIOR.log_evidence(data)
    priors = PRIOR.condition(data.rows(slice(1)))  # a prior for each task
    of_own, evidence_of_own = priors.condition(data), priors.log_evidence(data)
    for at in small(data)[::5]:
        few, own = PRIOR.condition(data[at]), PRIOR.condition(data[at].rows(slice(1)))
        torch.testing.assert_close(posterior.scatter[at], few.scatter, rtol=1e-10, atol=0)
        torch.testing.assert_close(posterior.loc[at], few.loc, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(evidence[at], PRIOR.log_evidence(data[at]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(of_own.scatter[at], own.condition(data[at]).scatter, rtol=1e-10, atol=0)
        torch.testing.assert_close(evidence_of_own[at], own.log_evidence(data[at]), rtol=1e-10, atol=1e-12)


def test_linear_posteriors_and_evidence_of_many_tasks_are_those_of_few() -> None:
    g = seed(0)
    x, y = randn((TASKS, 4, 3), like=F64, generator=g), randn((TASKS, 4), like=F64, generator=g) + 5.0
    data = Data(x, y, torch.rand(TASKS, 4, generator=g) < 0.7)
    prior = FAMILIES["linear_gaussian"].prior
    priors = prior.condition(data.rows(slice(1)))  # a prior for each task
    for start, of_few in ((prior, lambda at: prior), (priors, lambda at: prior.condition(data[at].rows(slice(1))))):
        posterior, evidence = start.condition(data), start.log_evidence(data)
        for at in small(data)[::5]:
            few = of_few(at).condition(data[at])
            torch.testing.assert_close(posterior.loc[at], few.loc, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(posterior.precision[at], few.precision, rtol=1e-10, atol=0)
            torch.testing.assert_close(evidence[at], of_few(at).log_evidence(data[at]), rtol=1e-10, atol=1e-12)


def test_a_task_of_many_is_named_by_its_place_among_all() -> None:
    rows = many(offset=0.0).y.clone()
    rows[TASKS - 3] *= 1e200  # whose square is infinite
    with pytest.raises(ValueError, match=rf"scatter of task {TASKS - 3} is not positive definite \(it is not finite"):
        PRIOR.log_evidence(Data.of(None, rows, event_dim=1))


def test_gradients_flow_through_many_tasks() -> None:
    data = many(offset=0.0)
    loc = PRIOR.loc.clone().requires_grad_()
    evidence = NormalInverseWishart(loc, PRIOR.pseudo_count, PRIOR.df, PRIOR.scatter).log_evidence(data)
    (slope,) = torch.autograd.grad(evidence.sum(), loc)
    step = torch.tensor([1e-4, 0.0, 0.0], dtype=torch.float64)
    above, below = (PRIOR._replace(loc=PRIOR.loc + s).log_evidence(data).sum() for s in (step, -step))
    assert slope[0].item() == pytest.approx((above - below).item() / 2e-4, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dim", [1, 3, 12, 20])
def test_factors_by_columns_are_those_of_lapack(dtype: torch.dtype, dim: int) -> None:
    matrices = _matrices(6000, dim).to(dtype)  # more than a piece, where they have twenty columns
    tasks_last = matrices.movedim(0, -1).contiguous().movedim(-1, 0)
    assert bayesmeta.numerics.linalg._suits_columns(tasks_last) == ((dtype, dim) != (torch.float64, 20))
    by_columns = cholesky(tasks_last, "scatter")
    rtol = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(by_columns, torch.linalg.cholesky(matrices), rtol=rtol, atol=rtol)


def test_solutions_by_columns_are_those_of_lapack() -> None:
    factor = torch.linalg.cholesky(_matrices(6000, 5))
    vector = randn((6000, 5), like=F64, generator=seed(2))
    by_columns = solve(factor.movedim(0, -1).contiguous().movedim(-1, 0), vector)
    torch.testing.assert_close(by_columns, solve(factor, vector), rtol=1e-10, atol=1e-10)


def test_factors_by_columns_name_the_failing_task() -> None:
    matrices = _matrices(bayesmeta.numerics.linalg.LEAST_TASKS).movedim(0, -1).contiguous().movedim(-1, 0)
    matrices[17] -= 30.0 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="scatter of task 17 is not positive definite"):
        cholesky(matrices, "scatter")


def _matrices(tasks: int, dim: int = 3) -> Tensor:
    a = randn((tasks, dim, dim), like=F64, generator=seed(1))
    return a @ a.mT + torch.eye(dim, dtype=torch.float64)


def test_unrolled_pivots_give_the_determinant() -> None:
    matrices = _matrices(5)
    pivots = torch.stack(bayesmeta.numerics.linalg._pivots(matrices)).log().sum(0)
    torch.testing.assert_close(pivots, log_det_of(matrices, "scatter"), rtol=1e-10, atol=1e-12)


def test_unrolled_moments_are_those_in_cache() -> None:
    data, count = many(50), torch.full((50,), 4.0, dtype=torch.float64)
    x, y = data.x, randn((50, 4, 3), like=F64, generator=seed(2))
    for order in (1, 2):
        fused = bayesmeta.data.reduction._moments(x, y, count, order)
        k = x.shape[-1] + y.shape[-1]
        plain = (F64.new_empty(k, 50), F64.new_empty(k, 50), F64.new_empty(k, k, 50) if order == 2 else None)
        bayesmeta.data.reduction._moments_in_cache(x, y, count, None, F64.new_empty(4 * k * 50), plain)
        for a, b in zip(fused, plain, strict=True):
            if a is None or b is None:
                assert a is b
                assert order == 1
            else:
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


# in processes of their own: the annotations that tests check are more than the compiler can trace

FUSED = """
import torch, warnings
from bayesmeta import Data, NormalInverseWishart, compiled
from bayesmeta.numerics import fused
from tests.seeds import seed
warnings.simplefilter("error", RuntimeWarning)
torch.set_num_threads(1)

def same(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)

y = torch.randn(17_000, 4, 3, dtype=torch.float64, generator=seed(0)) + 10.0
mask = torch.rand(17_000, 4, generator=seed(1)) < 0.7
for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
    full = Data.of(None, y.to(dtype), event_dim=1)
    ragged = Data(full.x, full.y, mask)
    prior = NormalInverseWishart.initial(full[:50])
    for data in (full, ragged):
        plain, evidence = prior.condition(data), prior.log_evidence(data)
        with compiled():
            ours, ours_evidence = prior.condition(data), prior.log_evidence(data)
            again = ours.condition(data)  # a prior for each task
        for name in ("loc", "df", "scatter"):
            same(getattr(ours, name), getattr(plain, name), tolerance)
            same(getattr(again, name), getattr(plain.condition(data), name), tolerance)
        same(ours_evidence, evidence, tolerance)
assert not fused._failed and fused._kernel.cache_info().currsize == 3
far = y.clone()
far[16_500] *= 1e200
try:
    with compiled():
        prior.log_evidence(Data.of(None, far, event_dim=1))
except ValueError as error:
    assert "scatter of task 16500 is" in str(error), error
else:
    raise AssertionError("an infinite scatter went unnoticed")
"""

UNFUSED = """
import torch, warnings
from bayesmeta import Data, NormalInverseWishart, compiled
from tests.seeds import seed
torch.set_num_threads(1)
data = Data.of(None, torch.randn(17_000, 4, 2, dtype=torch.float64, generator=seed(0)), event_dim=1)
prior = NormalInverseWishart.initial(data[:50])
with warnings.catch_warnings(record=True) as caught, compiled():
    warnings.simplefilter("always")
    first, second = prior.condition(data), prior.condition(data)
told = [str(w.message) for w in caught if "arithmetic is not fused" in str(w.message)]
assert len(told) == 1, caught
assert torch.equal(first.scatter, prior.condition(data).scatter) and torch.equal(first.scatter, second.scatter)
"""


@pytest.mark.slow
def test_fused_answers_are_the_plain_ones() -> None:
    subprocess.run([sys.executable, "-c", FUSED], check=True)


@pytest.mark.slow
def test_without_a_compiler_it_warns_once_and_goes_on(tmp_path: Path) -> None:
    """Nor what was compiled before."""
    nothing = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", UNFUSED], check=True, env=os.environ | nothing)
