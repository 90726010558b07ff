"""Logs survive files and other formats, and refuse what no estimate could be made of."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch

import bandits
from bayesmeta import BetaBernoulli, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted


def a_log(n: int = 20, **changes: Any) -> bandits.Log:
    generator = seed(0)
    fields: dict[str, Any] = {
        "arm": torch.randint(3, (n,), generator=generator),
        "reward": torch.rand(n, generator=generator).double(),
        "propensity": 0.1 + 0.9 * torch.rand(n, generator=generator).double(),
        "names": ("a", "b", "c"),
        "context": torch.randn(n, 2, generator=generator).double(),
        "task": torch.randint(4, (n,), generator=generator),
    }
    return bandits.Log(**(fields | changes))


def same(a: bandits.Log, b: bandits.Log) -> None:
    assert a.names == b.names
    for name in ("arm", "reward", "propensity", "context", "task", "position"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            torch.testing.assert_close(left, right)


def test_a_log_survives_a_file(tmp_path: Path) -> None:
    log = a_log()
    log.save(tmp_path / "log.parquet")
    same(bandits.Log.load(tmp_path / "log.parquet", log.names), log)
    assert pl.read_parquet(tmp_path / "log.parquet")["arm"].to_list() == [log.names[i] for i in log.arm.tolist()]


def test_a_log_survives_the_format_of_the_open_bandit_pipeline() -> None:
    log = a_log(task=None, position=torch.zeros(20, dtype=torch.long))
    feedback = log.to_obp()
    assert feedback["n_rounds"] == 20 and feedback["n_actions"] == 3  # noqa: PT018 - one statement, two keys
    same(bandits.Log.from_obp(feedback, log.names), log)


def test_tables_of_the_open_bandit_dataset_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"item_id": [0, 2, 1], "click": [0, 1, 0], "propensity_score": [0.5, 0.25, 0.25], "position": [1, 3, 2]}
    )
    frame.write_parquet(tmp_path / "bts.parquet")
    log = bandits.Log.from_open_bandit(tmp_path / "bts.parquet")
    assert log.num_arms == 3
    assert log.reward.tolist() == [0.0, 1.0, 0.0]
    assert log.position is not None
    assert log.position.tolist() == [0, 2, 1]


def test_a_writer_gathers_late_rewards() -> None:
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1)
    policy = bandits.ThompsonSampling(prior, ["a", "b"], seed=shifted(0))
    writer = bandits.LogWriter(policy.arms)
    contexts = torch.randn(6, 2, generator=seed(1)).double()
    choices = [policy.choose(row) for row in contexts]
    for choice, row in zip(choices, contexts, strict=True):
        writer.record(choice, row)
    with pytest.raises(ValueError, match="no decision has had its reward yet"):
        writer.log()
    writer.reward([5, 0], [1.0, 2.0])
    writer.reward(choices[3], 3.0)
    assert writer.num_pending == 3
    log = writer.log()
    assert log.reward.tolist() == [1.0, 2.0, 3.0]
    assert log.context is not None
    torch.testing.assert_close(log.context, contexts[[5, 0, 3]])
    torch.testing.assert_close(log.propensity, torch.tensor([choices[i].propensity for i in (5, 0, 3)]).double())
    with pytest.raises(ValueError, match="decision 5 does not wait for a reward"):
        writer.reward(5, 1.0)
    with pytest.raises(ValueError, match="got 2 decisions and 1 rewards"):
        writer.reward([1, 2], [1.0])
    both = policy.choose(contexts)
    writer.record(both, contexts)
    assert writer.num_pending == 9


def test_a_writer_remembers_the_latest_decisions() -> None:
    policy = bandits.UniformlyRandom(["a", "b"], seed=shifted(0))
    writer = bandits.LogWriter(policy.arms, max_pending=3)
    writer.record(policy.choose(num=5))
    assert writer.num_pending == 3
    with pytest.raises(ValueError, match="decision 1 does not wait for a reward"):
        writer.reward(1, 1.0)
    writer.reward([2, 3, 4], [1.0, 2.0, 3.0])
    assert len(writer.log()) == 3
    with pytest.raises(ValueError, match="max_pending must be at least 1; got 0"):
        bandits.LogWriter(["a"], max_pending=0)
    with pytest.raises(TypeError, match=r"max_pending must be a whole number; got 1\.5"):
        bandits.LogWriter(["a"], max_pending=1.5)


def test_a_writer_needs_propensities_and_known_arms() -> None:
    policy = bandits.ThompsonSampling(BetaBernoulli(F64 + 1, F64 + 1), ["a", "b"], seed=shifted(0), propensities=False)
    with pytest.raises(ValueError, match="choices must carry their propensities"):
        bandits.LogWriter(policy.arms).record(policy.choose())
    with pytest.raises(ValueError, match="there is no arm"):
        bandits.LogWriter(["x"]).record(policy.choose(propensities=True))


def test_a_writer_keeps_the_rows_that_can_be_used_and_says_which_cannot() -> None:
    writer = bandits.LogWriter(["a", "b"])
    for id, propensity in enumerate([0.5, 0.0, math.nan, 1.0]):
        writer.record(bandits.Choice(id, "a", 0, propensity))
    writer.reward([0, 1, 2, 3], [1.0, 0.0, 1.0, math.inf])
    with pytest.warns(bandits.UnusableRowsWarning, match="3 of 4 decisions cannot be used, of which the first is deci"):
        log = writer.log()
    assert log.propensity.tolist() == [0.5]
    assert list(writer.unusable) == [1, 2, 3]
    assert writer.unusable[3] == "its reward is inf, and must be finite"
    hopeless = bandits.LogWriter(["a"])
    hopeless.record(bandits.Choice(7, "a", 0, 0.0))
    hopeless.reward(7, 1.0)
    with pytest.raises(ValueError, match=r"decision 7: its propensity is 0.0"):
        hopeless.log()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": torch.ones(3)}, "reward must have a row for each of 20 decisions; got 3"),
        ({"arm": torch.full((20,), 3)}, "arm must be of 3 arms; that of decision 0 is 3"),
        ({"reward": torch.full((20,), torch.nan)}, "reward must be finite"),
        ({"propensity": torch.zeros(20)}, "propensity must be above 0 and at most 1"),
        ({"propensity": torch.full((20,), 1.5)}, "propensity must be above 0 and at most 1"),
        ({"context": torch.full((20, 2), torch.inf)}, "context must be finite"),
        ({"context": torch.ones(20)}, r"context must have shape \(n, c\) for n decisions; got \(20,\)"),
        ({"reward": torch.ones(20, 1)}, r"reward must have shape \(n,\) for n decisions; got \(20, 1\)"),
        ({"names": ("a", "b", "a")}, "arms must have different names; 'a' is named twice"),
    ],
)
def test_bad_logs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_log(**changes)


def test_tables_that_lack_something(tmp_path: Path) -> None:
    pl.DataFrame({"arm": ["a"], "reward": [1.0]}).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="propensity is missing"):
        bandits.Log.load(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="item_id, click, propensity_score, position is missing"):
        bandits.Log.from_open_bandit(pl.DataFrame({"arm": ["a"]}))
    with pytest.raises(ValueError, match="pscore is missing"):
        bandits.Log.from_obp({"action": [0], "reward": [1.0], "n_actions": 2})
    a_log().save(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"has a decision for arm '[bc]', which names do not have"):
        bandits.Log.load(tmp_path / "log.parquet", ["a"])


@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series, pl.Series])
def test_a_log_may_be_made_of_anything_with_numbers(kind: Any) -> None:
    log = a_log()
    columns = {name: kind(getattr(log, name).numpy()) for name in ("arm", "reward", "propensity", "task")}
    assert log.context is not None
    made = bandits.Log(**columns, names=list(log.names), context=log.context.tolist())
    same(made, log)
    with pytest.raises(TypeError, match=r"arm must be whole numbers; got 0\.5"):
        bandits.Log([0.5], [1.0], [1.0], ["a"])
    with pytest.raises(TypeError, match=r"reward must be numbers; got '1'"):
        bandits.Log([0], ["1"], [1.0], ["a"])
    with pytest.raises(TypeError, match="names must be a list of the names of arms; got 'ab'"):
        bandits.Log([0], [1.0], [1.0], "ab")


@pytest.mark.parametrize(
    "names", [["x", None, "z"], [3, 1, 2], [0.5, 1, 2], [True, False, None], list(np.array(["x", "y", "z"]))], ids=str
)
def test_names_of_one_kind_survive_a_file(names: Any, tmp_path: Path) -> None:
    log = a_log(names=names)
    log.save(tmp_path / "log.parquet")
    same(bandits.Log.load(tmp_path / "log.parquet", log.names), log)
    log[:0].save(tmp_path / "log.parquet")
    assert len(bandits.Log.load(tmp_path / "log.parquet", log.names)) == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", 3, "b"], r"got 'a' \(str\), 3 \(int\)\. Name them anew"),
        ([("a", 1), ("b", 1), ("c", 2)], r"got \('a', 1\) \(tuple\)"),
        ([("a", "b"), ("b", "c"), ("c", "d")], r"got \('a', 'b'\) \(tuple\)"),
        ([frozenset("a"), 3, None], "must be strings, or numbers, all of one kind"),
    ],
)
def test_names_that_no_file_keeps_are_named(names: Any, message: str, tmp_path: Path) -> None:
    log = a_log(names=names)
    with pytest.raises(TypeError, match=message):
        log.save(tmp_path / "log.parquet")
    assert not list(tmp_path.iterdir())
    dataclasses.replace(log, names=[str(name) for name in names]).save(tmp_path / "log.parquet")


def recorded(*contexts: Any, rewarded: bool = True) -> bandits.LogWriter:
    """A writer that has seen a decision for each context."""
    writer = bandits.LogWriter(["a", "b"])
    for id, context in enumerate(contexts):
        writer.record(bandits.Choice(id, "a", 0, 0.5), context)
        if rewarded:
            writer.reward(id, float(id))
    return writer


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda writer: writer.reward([0, 0], [1.0, 0.0]), ValueError, "decision 0 is given two rewards; each has one"),
        (lambda writer: writer.reward([0, 7], [1.0, 0.0]), ValueError, "decision 7 does not wait for a reward"),
        (lambda writer: writer.reward(0, None), TypeError, "rewards must be numbers; got None"),
        (lambda writer: writer.reward(0, "1"), TypeError, "rewards must be numbers; got '1'"),
        (lambda writer: writer.reward("a", 1.0), TypeError, "a choice is what choose returned, or its number; got 'a'"),
        (
            lambda writer: writer.record([bandits.Choice(8, "a", 0, 0.5), bandits.Choice(9, "x", 0, 0.5)]),
            ValueError,
            "there is no arm 'x' in this log",
        ),
        (lambda writer: writer.record(8), TypeError, "record takes what choose returned, a Choice or Choices; got 8"),
        (
            lambda writer: writer.record(bandits.Choice(8, "a", 0, 0.5), [[1.0], [2.0]]),
            ValueError,
            r"each of 1 decision needs its context, shape \(1, c\); got \(2, 1\)",
        ),
        (
            lambda writer: writer.record([bandits.Choice(i, "a", 0, 0.5) for i in (8, 9)], torch.ones(3, 2)),
            ValueError,
            r"each of 2 decisions needs its context, shape \(2, c\); got \(3, 2\)",
        ),
        (
            lambda writer: writer.record(bandits.Choice(8, "a", 0, 0.5), ["x"]),
            TypeError,
            "contexts must be numbers; got 'x'",
        ),
    ],
)
def test_what_a_writer_refuses_changes_nothing(call: Any, error: type[Exception], message: str) -> None:
    writer = recorded([1.0], [2.0], rewarded=False)
    with pytest.raises(error, match=message):
        call(writer)
    assert writer.num_pending == 2
    writer.reward([0, 1], [1.0, 0.0])
    assert writer.log().reward.tolist() == [1.0, 0.0]


def test_a_decision_is_logged_once() -> None:
    writer = recorded(None, None)
    with pytest.raises(ValueError, match="decision 1 has had its reward, and a log has each once"):
        writer.record(bandits.Choice(1, "a", 0, 0.5))
    assert (len(writer.log()), writer.num_pending) == (2, 0)


@pytest.mark.parametrize(
    ("contexts", "left_out", "why"),
    [
        ([[1.0, 2.0], [math.nan, 1.0], [3.0, 4.0]], 1, r"its context is \[nan, 1\.0\], and must be finite"),
        ([[1.0, 2.0], None, [3.0, 4.0]], 1, "recorded without a context, and others have one, of 2 numbers"),
        ([None, [1.0, 2.0], [3.0, 4.0]], 0, "recorded without a context, and others have one, of 2 numbers"),
        ([[1.0, 2.0], [3.0, 4.0], [5.0]], 2, "its context has 1 number, and that of the first has 2"),
    ],
)
def test_decisions_whose_context_cannot_be_used_are_left_out(contexts: list[Any], left_out: int, why: str) -> None:
    writer = recorded(*contexts)
    with pytest.warns(bandits.UnusableRowsWarning, match=f"1 of 3 decisions cannot be used.*{why}"):
        log = writer.log()
    assert list(writer.unusable) == [left_out]
    rest = [i for i in range(3) if i != left_out]
    assert log.reward.tolist() == rest
    assert log.context is not None
    assert log.context.tolist() == [contexts[i] for i in rest]


@pytest.mark.parametrize(
    "kind",
    [
        pd.DataFrame,
        lambda rows: pl.DataFrame(rows, orient="row"),
        scipy.sparse.csr_matrix,
        np.array,
        torch.tensor,
        list,
    ],
    ids=["pandas", "polars", "sparse", "array", "tensor", "list"],
)
def test_a_writer_takes_contexts_and_rewards_as_a_policy_does(kind: Callable[[Any], Any]) -> None:
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1)
    policy = bandits.ThompsonSampling(prior, ["a", "b"], seed=shifted(0))
    writer = bandits.LogWriter(policy.arms)
    rows = [[1.0, 0.5], [0.0, 2.0], [3.0, 1.0]]
    choices = policy.choose(kind(rows))
    writer.record(choices, kind(rows))
    one, two, three = choices
    writer.reward([one, two], pd.Series([1.0, 2.0]))
    writer.reward(np.int64(three.id), np.float32(3.0))
    single = policy.choose(kind(rows[:1]))
    writer.record(single, kind(rows[:1]))
    writer.reward(single, 4)
    log = writer.log()
    assert log.reward.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert log.context is not None
    assert log.context.tolist() == [*rows, rows[0]]


def test_a_writer_keeps_contexts_that_are_changed_later() -> None:
    writer = bandits.LogWriter(["a"])
    context = torch.zeros(2).double()
    for id in range(3):
        context += 1.0
        writer.record(bandits.Choice(id, "a", 0, 0.5), context)
        writer.reward(id, 1.0)
    log = writer.log()
    assert log.context is not None
    assert log.context[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_a_writer_has_different_names() -> None:
    with pytest.raises(ValueError, match="'a' is named twice"):
        bandits.LogWriter(("a", "a"))
    with pytest.raises(TypeError, match=r"got 'ab'\. Try \['ab'\]"):
        bandits.LogWriter("ab")
