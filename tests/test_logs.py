"""Logs survive files and other formats, and refuse what no estimate could be made of."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
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
    with pytest.raises(ValueError, match="at least one decision must be remembered; got 0"):
        bandits.LogWriter(["a"], max_pending=0)


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
