"""The family, policy and suggester of docs/extending.md, taken from the page: laws, length, maths, files."""

import ast
import dataclasses
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch

import bayesmeta as bm
from bandits.testing import laws_of as policy_laws_of
from bayesmeta import Data, LimitWarning, io
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.protocol import Evidence, Learnable, Posterior
from bayesmeta.testing import laws_of
from tests.bayesmeta.hyperparameters.test_mode import (
    test_fit_agrees_with_a_slow_reference as agrees_with_a_slow_reference,
)
from tests.families import F64, Family, seed

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
CODE, USES, LAWS, POLICY, POLICY_LAWS, SUGGESTER, SUGGESTER_LAWS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(PYPROJECT,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
ALL_LAWS = {
    "two_updates_equal_one",
    "a_batch_equals_a_loop",
    "padding_is_invisible",
    "draws_agree_with_predict",
    "evidence_is_the_sum_of_one_step_predictions",
    "hyperparameters_have_the_evidence_of_the_prior_that_they_build",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's module, in a package that is installed as the page says."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "beta_binomial.py").write_text(CODE)
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    families = tomllib.loads(PYPROJECT)["project"]["entry-points"][io.GROUP]
    lines = [f"{name} = {where}\n" for name, where in families.items()]
    (info / "entry_points.txt").write_text(f"[{io.GROUP}]\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        io._registered.cache_clear()
        yield importlib.import_module("beta_binomial")
        del sys.modules["beta_binomial"]
    io._registered.cache_clear()


@pytest.fixture
def prior(page: ModuleType) -> Any:
    return page.BetaBinomial(F64 + 2.0, F64 + 3.5)


@pytest.fixture
def family(page: ModuleType) -> Family:
    """As the third example of the page makes it, which also runs its laws."""
    names = dict(vars(page))
    exec(compile(LAWS, "extending.md", "exec"), names)
    return names["family"]


def drawn(prior: Any, num_tasks: int, *, number: int = 0) -> Data:
    trials = torch.randint(1, 30, (num_tasks, 4, 1), generator=seed(number)).double()
    chance = prior.constrain(prior.sample_params(num_tasks, generator=seed(number + 1)))["chance"]
    won = torch.binomial(trials[..., 0], chance[:, None].expand(-1, 4).contiguous(), generator=seed(number + 2))
    return Data.of(trials, won)


def test_the_family_has_at_most_forty_lines() -> None:
    tree, left_out = ast.parse(CODE), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            left_out |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = [line.strip() for i, line in enumerate(CODE.splitlines(), 1) if i not in left_out]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 40
    assert max(len(line) for line in CODE.splitlines()) <= 120
    assert ";" not in CODE


def test_it_has_the_protocols_that_the_page_needs(prior: Any) -> None:
    for protocol in (Posterior, Evidence, Learnable, Hierarchical):
        assert isinstance(prior, protocol)


def test_the_laws_hold(family: Family) -> None:
    names = {law.__name__ for law in laws_of(family)}
    assert names >= ALL_LAWS
    assert len(names) >= 12


def test_the_laws_find_a_mistake(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_prior = type(family.prior)
    monkeypatch.setattr(wrong_prior, "condition", lambda self, data: self._replace(a=self.a + data.y.sum(-1)))
    broken = []
    for law in laws_of(family):
        try:
            law(family)
        except AssertionError:
            broken.append(law.__name__)
    assert "padding_is_invisible" in broken
    assert "evidence_is_the_sum_of_one_step_predictions" in broken


def test_evidence_and_predictions_match_scipy(prior: Any) -> None:
    for trials, won in ((9.0, 4.0), (1.0, 0.0), (1000.0, 1000.0)):
        row = Data.of(F64.expand(1, 1) + trials, F64.expand(1) + won)
        expected = scipy.stats.betabinom(trials, 2.0, 3.5).logpmf(won)
        assert prior.log_evidence(row).item() == pytest.approx(expected, rel=1e-10)
        assert prior.predict(row.x).log_prob(row.y).item() == pytest.approx(expected, rel=1e-10)


def test_evidence_of_several_rows_matches_quadrature(prior: Any) -> None:
    trials, won = np.array([5.0, 12.0, 3.0]), np.array([1.0, 7.0, 0.0])

    def density(p: float) -> float:
        return float(scipy.stats.binom(trials, p).pmf(won).prod() * scipy.stats.beta(2.0, 3.5).pdf(p))

    expected, _ = scipy.integrate.quad(density, 0.0, 1.0, epsabs=0.0, epsrel=1e-12)
    data = Data.of(torch.tensor(trials)[:, None], torch.tensor(won))
    assert prior.log_evidence(data).item() == pytest.approx(np.log(expected), rel=1e-10)


def test_fit_agrees_with_a_slow_reference(family: Family) -> None:
    agrees_with_a_slow_reference(family, 1.0)


def test_fit_records_what_it_learned_from_and_follows_the_dtype(page: ModuleType, prior: Any) -> None:
    tasks = drawn(prior, 8).to(torch.float32)
    fitted = page.BetaBinomial.initial(tasks).fit(tasks)
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (8, 32)
    assert fitted.a.dtype == torch.float32


def test_tasks_that_are_alike_end_at_the_limit_with_a_warning(page: ModuleType) -> None:
    tasks = Data.of(F64.expand(6, 3, 1) + 10.0, F64.expand(6, 3) + 4.0)
    start = page.BetaBinomial.initial(tasks)
    with pytest.warns(LimitWarning, match="tasks share one chance"):
        fitted = start.fit(tasks, hyperprior_weight=0.0)
    assert (fitted.a + fitted.b).log().item() == pytest.approx(18.0)
    assert (fitted.a / (fitted.a + fitted.b)).item() == pytest.approx(0.4, rel=1e-6)
    assert start.fit(tasks).a < 1e4  # the hyperprior holds it back


def test_fit_needs_two_tasks(page: ModuleType, prior: Any) -> None:
    one = drawn(prior, 1)
    with pytest.raises(ValueError, match="at least two tasks"):
        page.BetaBinomial.initial(one).fit(one)


def test_rows_that_are_no_counts_of_their_trials_are_refused(prior: Any) -> None:
    for trials, won in ((3.0, 4.0), (3.0, -1.0), (3.0, 0.5)):
        row = Data.of(F64.expand(1, 1) + trials, F64.expand(1) + won)
        with pytest.raises(ValueError, match="support"):
            prior.condition(row)
    with pytest.raises(ValueError, match="x must have 1 columns"):
        prior.condition(Data.of(None, F64.expand(3)))


def test_the_hyperposterior_matches_quadrature(page: ModuleType, prior: Any) -> None:
    tasks = drawn(prior, 6)
    start = page.BetaBinomial.initial(tasks)
    found = bm.Hyperposterior.fit(start, tasks, num_draws=4000, generator=seed(0))
    unknown = start.hyperparameters(tasks)
    axes = (torch.linspace(-5.0, 5.0, 201), torch.linspace(-4.0, 12.0, 261))
    grid = torch.stack(torch.meshgrid(*(axis.double() for axis in axes), indexing="ij"), -1)
    weights = torch.stack([unknown.log_density(row) for row in grid]).flatten().softmax(0)
    expected = weights @ grid.flatten(0, 1)
    assert weights.reshape(201, 261)[[0, -1]].sum() + weights.reshape(201, 261)[:, [0, -1]].sum() < 1e-4
    mean = found.log_weights.exp() @ found.draws
    spread = (weights @ (grid.flatten(0, 1) - expected).square()).sqrt()
    assert ((mean - expected).abs() < 5 * spread / found.ess**0.5).all()


def test_it_is_saved_and_loaded(page: ModuleType, prior: Any, tmp_path: Path) -> None:
    tasks = drawn(prior, 5)
    fitted = page.BetaBinomial.initial(tasks).fit(tasks)
    bm.save(fitted, tmp_path / "prior")
    loaded = bm.load(tmp_path / "prior")
    assert type(loaded) is page.BetaBinomial
    assert loaded.learned_from == fitted.learned_from
    for field in ("a", "b"):
        assert torch.equal(getattr(loaded, field), getattr(fitted, field))
    assert io.read_header(tmp_path / "prior")["family"] == "BetaBinomial"


def test_the_policy_obeys_its_laws(page: ModuleType) -> None:
    names = dict(vars(page))
    for code in (LAWS, POLICY, POLICY_LAWS):
        exec(compile(code, "extending.md", "exec"), names)
    assert len(policy_laws_of(names["case"])) >= 10
    policy = names["case"].policy()
    assert policy.probabilities().probability.tolist() == [[0.5, 0.5]]
    policy.learn(["a"] * 4, [1.0] * 4)
    assert policy.probabilities().probability[0, 0] > 0.9


def test_the_suggester_is_held_to_the_laws_of_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("farthest")  # what is pickled is found by its module
    vars(module)["torch"] = torch
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for example in (SUGGESTER, SUGGESTER_LAWS):
        exec(compile(example, "extending.md", "exec"), vars(module))
    assert len(module.laws_of(module.case)) >= 9
    assert module.prior.suggest(Data.of(torch.zeros(0, 3), torch.zeros(0))).turn == "far"


@pytest.mark.slow
def test_everything_that_the_page_does_with_it(page: ModuleType) -> None:
    names = dict(vars(page))
    exec(compile(USES.replace("num_chains=1", "num_chains=1, progress=False"), "extending.md", "exec"), names)
    truth, found = names["chance"][:, 0, 0], names["full_bayes"].posterior["task_chance"]
    assert found.shape == (1, 100, 30)
    assert np.corrcoef(found.mean(("chain", "draw")), truth)[0, 1] > 0.9
    assert names["kinds"].num_kinds == 1
    assert names["hyperposterior"].ess > 250
    assert names["left_out"].sum() < names["prior"].log_evidence(names["shops"]).sum()
    assert names["by_size"].given(names["shops"].task_x).batch_shape == (30,)
    assert scipy.stats.kstest(names["surprise"].numpy(), "uniform").pvalue > 1e-6
    marginal = names["hyperposterior"].marginal(20, generator=seed(0))
    functions = marginal.condition(names["shops"]).sample(3, generator=seed(1))
    assert functions.predict(names["shops"].x).mean.shape == (3, 30, 7)
    assert dataclasses.is_dataclass(names["prior"])
