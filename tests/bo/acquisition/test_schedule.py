"""Whose turn it is, and that each turn does what it says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesmeta import Data
from bo import TuningPrior
from bo.acquisition.schedule import MIN_ROWS, NUM_EXPLORED, NUM_LIST
from tests.bo.past import learned, loss
from tests.families import seed

PRIOR: TuningPrior = learned()
SPACE = PRIOR.space
NOTHING = torch.empty(0, SPACE.num_columns, dtype=torch.float64)
LISTED = ["list"] * NUM_LIST


def rows(num: int, *, number: int = 0) -> Data:
    x = SPACE.sobol(64, generator=seed(number))[:num]
    return Data.of(x, torch.tensor([loss(params) for params in SPACE.from_unit(x)], dtype=torch.float64))


def falling(num: int) -> Data:
    """Rows of which each is better than those before."""
    data = rows(num)
    order = data.y.argsort(descending=True)
    return Data.of(data.x[order], data.y[order])


def turn(data: Data, turns: list[str], pending: Tensor = NOTHING) -> str:
    return PRIOR.suggest(data, pending, turns)[0]


def test_a_study_begins_with_the_list_of_the_past() -> None:
    assert turn(rows(0), []) == turn(rows(1), ["list"]) == "list"
    assert turn(rows(5), []) == "list", "also after rows from elsewhere"
    assert turn(rows(2), LISTED) == "mixture"
    assert turn(rows(0), LISTED, rows(2).x) == "list", "while nothing has finished"


def test_turns_alternate_once_there_are_rows() -> None:
    data = falling(MIN_ROWS + 1)
    odd, even = [*LISTED, "past"], [*LISTED, "past", "plain"]
    assert turn(data, odd) == "plain"
    assert turn(data, even) in ("past", "plain")
    assert turn(falling(MIN_ROWS - 1), odd) == "mixture"


def test_evidence_against_the_past_gives_its_turns_to_the_plain_process() -> None:
    generator = seed(3)
    x = SPACE.sobol(40, generator=generator)
    noise = Data.of(x, torch.randn(40, generator=generator, dtype=torch.float64).cumsum(0).neg())
    alike = rows(40)
    even = [*LISTED, *["past", "plain"] * 3]
    assert turn(alike, even) == "past"
    assert turn(noise, even) == "plain"


def test_a_stalled_study_explores_until_enough_was_chosen_without_the_past() -> None:
    data = falling(8)
    stalled = Data.of(data.x, torch.cat([data.y[-1:], data.y[:-1]]))  # the first is the best
    turns = [*LISTED, "mixture", "mixture", "mixture", "past", "past"]
    assert turn(stalled, [*turns, "past"][:7]) == "explore"
    assert turn(data, turns) == "plain", "it still gains"
    assert turn(stalled, [*LISTED, "past"]) == "plain", "five rows are not from the past"
    done = [*LISTED, "past", *["explore", "past"] * NUM_EXPLORED]
    more = rows(len(done))
    worst_last = Data.of(more.x, more.y.sort().values)
    assert turn(worst_last, done) == "plain"


def test_exploring_goes_to_other_places_each_time() -> None:
    data = falling(8)
    stalled = Data.of(data.x, torch.cat([data.y[-1:], data.y[:-1]]))
    x = SPACE.sobol(256, generator=seed(0))
    turns, chosen = [*LISTED, "mixture", "mixture", "mixture", "past", "past"], []
    for _ in range(2):
        name, value = PRIOR.suggest(stalled, NOTHING, turns)
        assert name == "explore"
        chosen.append(int(value(x).argmax()))
        turns = [*turns, "explore", "past"]
        extra = falling(len(turns) + 1)
        stalled = Data.of(extra.x, torch.cat([extra.y[-1:], extra.y[:-1]]))
    assert chosen[0] != chosen[1]


def test_the_list_maximises_the_mean_over_past_tasks_of_the_best_so_far() -> None:
    x = SPACE.sobol(200, generator=seed(0))
    each = PRIOR.past.each(x)
    first = int(PRIOR.suggest(rows(0))[1](x).argmax())
    assert first == int(each.mean(-1).argmax())
    tried = Data.of(x[[first]], torch.zeros(1, dtype=torch.float64))
    second = PRIOR.suggest(tried, NOTHING, ["list"])[1](x)
    torch.testing.assert_close(second, torch.maximum(each, each[first]).mean(-1))


@pytest.mark.parametrize("turns", [LISTED, [*LISTED, "past"], [*LISTED, "past", "plain"]])
def test_units_of_the_objective_change_nothing(turns: list[str]) -> None:
    data, x = falling(9), SPACE.sobol(64, generator=seed(1))
    scaled = Data.of(data.x, 1e3 * data.y + 1e6)
    (name, value), (other, same) = PRIOR.suggest(data, NOTHING, turns), PRIOR.suggest(scaled, NOTHING, turns)
    assert name == other
    torch.testing.assert_close(value(x), same(x), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("turns", [[*LISTED, "past"], [*LISTED, "past", "plain"]])
def test_directions_mirror_each_other(turns: list[str]) -> None:
    data, x = falling(9), SPACE.sobol(64, generator=seed(1))
    mirrored = replace(PRIOR, direction="maximize")
    value = PRIOR.suggest(data, NOTHING, turns)[1](x)
    torch.testing.assert_close(value, mirrored.suggest(Data.of(data.x, -data.y), NOTHING, turns)[1](x))


def test_rows_that_are_all_equal_still_give_a_suggestion() -> None:
    data = Data.of(rows(12).x, torch.zeros(12, dtype=torch.float64))
    x = SPACE.sobol(64, generator=seed(1))
    for turns in (LISTED, [*LISTED, "past"], [*LISTED, "past", "plain"]):
        assert PRIOR.suggest(data, NOTHING, turns)[1](x).isfinite().all()


def test_thousands_of_rows_cost_no_more_than_hundreds() -> None:
    """What is conditioned on is bounded, whatever the study."""
    x = SPACE.sobol(2048, generator=seed(0))
    data = Data.of(x, (x - 0.3).square().sum(-1))
    for turns in ([*LISTED, "past"], [*LISTED, "past", "plain"]):
        _, value = PRIOR.suggest(data, NOTHING, turns)
        assert value(x[:8]).isfinite().all()


def test_few_hypotheses_stand_for_all() -> None:
    posterior = PRIOR.functions.condition(Data.of(rows(9).x, rows(9).y.neg()))
    few = posterior.leading(0.95, 8)
    assert len(few.log_weights) <= 8
    order = posterior.weights.sort(descending=True).indices[: len(few.log_weights)]
    x = SPACE.sobol(16, generator=seed(0))
    weights = posterior.weights[order] / posterior.weights[order].sum()
    by_hand = (weights[:, None] * posterior.components[order].marginal(x).mean).sum(0)
    torch.testing.assert_close(few.marginal(x).mean, by_hand)
    everything = posterior.components.marginal(x.unsqueeze(-3)).mean[order]
    torch.testing.assert_close(posterior.components[order].marginal(x.unsqueeze(-3)).mean, everything)
