import json
from pathlib import Path

import pytest
import torch

from bayesmeta.mcmc.targets import curvatures
from benchmarks.mcmc import run
from benchmarks.mcmc.methods import Size
from benchmarks.mcmc.posteriors import POSTERIORS
from benchmarks.mcmc.problems.logistic import logistic
from tests.seeds import seed, shifted


def few(budget: str) -> run.Problem:
    return logistic("logistic", 3, 10, 2, 2.0, shifted(0))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.SECTIONS, "logistic", run.Section(few, Size(2, 100, 50)))


@pytest.mark.usefixtures("small")
def test_figures_of_two_methods_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mcmc.json"
    for methods in ("laplace_t", "multi_start_laplace_t"):  # the second run keeps what the first one found
        run.main(["--sections", "logistic", "--methods", methods, "--out", str(out)])
    found = json.loads(out.read_text())
    for method in ("laplace_t", "multi_start_laplace_t"):
        assert found["figures"][f"ess_per_cpu_s/logistic/{method}"] > 0
        assert found["figures"][f"minutes/logistic/{method}"] > 0
    assert [row["tasks"] for row in found["tables"]["logistic"]] == [3, 3]
    assert "3 tasks of 10 rows" in capsys.readouterr().out


def test_names_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--methods", "stan"], "no method 'stan'"),
        (["--sections", "posteriordb"], "needs --data"),
    ):
        with pytest.raises(SystemExit):
            run.main([*arguments, "--out", str(tmp_path / "x.json")])
        assert message in capsys.readouterr().err


def test_peers_are_given_the_same_density() -> None:
    """Pyro's model and the targets differ by a constant of each task."""
    import pyro
    from pyro import poutine

    problem = few("quick")
    assert problem.pyro_model is not None
    w = torch.randn(4, 3, 2, generator=seed(1), dtype=torch.float64)
    ours = problem.targets.log_density(w)
    for task in range(3):
        data = {name: torch.from_numpy(value[task]) for name, value in problem.arrays.items()}
        theirs = torch.stack(
            [
                poutine.trace(pyro.condition(problem.pyro_model, {"w": w[i, task]})).get_trace(**data).log_prob_sum()
                for i in range(4)
            ]
        )
        torch.testing.assert_close(theirs - theirs[0], ours[:, task] - ours[0, task], rtol=0, atol=1e-9)


def test_reference_posteriors_are_differentiable() -> None:
    raw = {"mom_iq": [1.0, 2.0, 4.0], "kid_score": [2.0, 3.0, 5.0]}
    posterior = POSTERIORS["kidiq-kidscore_momiq"]
    data = posterior.data(raw)
    value, slope, hessian = curvatures(lambda x: posterior.log_density(x, **data), torch.zeros(1, 3).double())
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert hessian.shape == (1, 3, 3)
    assert len(posterior.scales(raw)) == 3
