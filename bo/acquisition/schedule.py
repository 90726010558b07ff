"""The schedule of acquisition functions: what the next suggestion maximises.

A model that weighs hypotheses by evidence still errs in the same direction from trial to trial: where the past misleads
in the one region that matters, evidence from elsewhere keeps it there. So suggestions take turns between acquisition
functions:

- `list`: the zero-shot portfolio of the past tasks. Each next point raises the mean over past tasks of the best so far
  the most. It gives the first two suggestions of a study, and all until a trial has finished, since the first rows of a
  task say little about what applies. When the portfolio ends, which is at once if past tasks agree, `mixture` takes its
  place. A portfolio of smooth functions goes on once a trial has finished: what is left of it explores.
- `mixture`: the expected improvement under all hypotheses, while there are few rows.
- `past`: the expected improvement under the hypotheses that trust the past.
- `plain`: the expected improvement under a Gaussian process fitted to this study alone. From six rows on, `past` and
  `plain` alternate. Late in a study three turns of four are `plain`. Where evidence is against the past, `plain` takes
  the turns of `past` too.
- `explore`: a space-filling point. It takes a turn of `plain` where the last trials gained nothing and fewer than five
  points were chosen without the past, since any Gaussian process without a past starts from such points.

Where past tasks share their configurations, their values are known and need no model. The portfolio is then made of
these values, and past tasks that rank the tried configurations as the new task does count for more in it
(`bo.priors.past_regrets`). It goes on for ten rows, and takes every other turn of `past` afterwards, as long as some
past task does so, evidence is not against the past, and there is something to gain. It ends where no configuration
takes away a hundredth of the regret that is left. From there expected improvement climbs from the best configuration,
if the space allows it.

After the first six to ten suggestions, at least every second one is thus `plain` or `explore`: no past can mislead it.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bo.acquisition.improvement import believing, improvement, log_expected_improvement
from bo.priors.scores import normal_scores
from bo.priors.tuning_prior import TuningPrior
from bo.single_study.process import plain_gp, some_rows
from bo.space.search_space import SearchSpace
from bo.space.study_space import OwnSpace
from bo.values import Expected, InOwnSpace, Near, Value

__all__ = ["suggest"]

NUM_LIST = 2
MIN_ROWS, MIN_LISTED = 6, 10  # before a plain Gaussian process has a turn, and where configurations are shared
LATE = 22  # suggestions, from which it has three turns of four: what the past knows was tried by then
NUM_EXPLORED, MIN_STALLED, PATIENCE = 5, 4, 2  # points without the past; rows, and trials without a gain, before one
MAX_ROWS, MAX_PLAIN_ROWS = 64, 400  # that hypotheses, and a plain Gaussian process, are conditioned on
NUM_CANDIDATES, LEAST_GAIN = 256, 0.01  # to see whether the list goes on: of what the best adds to an average point
MASS, MAX_HYPOTHESES = 0.95, 8  # of those that trust the past, kept for the search


def suggest(
    prior: TuningPrior,
    rows: Data,
    pending: Tensor,
    turns: Sequence[str],
    own: OwnSpace | None = None,
    feasible: Tensor | None = None,
) -> tuple[str, Value]:
    """The turn of the next suggestion, and how much points promise for it.

    Args:
        prior: what past tasks taught.
        rows: what was evaluated, in the order of the trials, `y` being the objective in its own units.
        pending: points `(m, d)` that were tried and have no value.
        turns: those of the study's earlier suggestions by this method, finished or not.
        own: the same rows and points as the study has them, in which a plain Gaussian process sees it; None where the
            study is searched in the space of the past.
        feasible: which rows met all constraints `(n,)`; None where all did.
    """
    own = OwnSpace(prior.space, rows.x, pending) if own is None else own
    better = rows.y if prior.direction == "maximize" else -rows.y
    turn = _next_turn(prior, rows.x, better, len(pending), turns)
    listed = _list_value(prior, rows.x, better, pending) if turn == "list" else None
    if turn == "list" and listed is None:
        turn = _next_turn(prior, rows.x, better, len(pending), turns, has_list=False)
    if listed is not None and len(better) < MIN_ROWS:
        return turn, listed
    if turn == "explore":
        return turn, InOwnSpace(Near(_space_filling_point(own.space, turns.count("explore"))))
    if turn == "plain":
        return turn, _plain_value(own, better, feasible)
    if prior.scores:
        y, maximize = normal_scores(better, rows.mask), True
    else:
        y, maximize = rows.y, prior.direction == "maximize"
    kept = some_rows(better, MAX_ROWS)
    functions, y = believing(prior.functions, Data.of(rows.x[kept], y[kept]), pending)
    if turn in ("past", "list"):
        if functions.weights[: prior.num_trusting].sum() < 0.5:
            return "plain", _plain_value(own, better, feasible)
        if listed is not None:
            return turn, listed
        functions = functions[: prior.num_trusting]
    if prior.num_trusting is not None:
        functions = functions.leading(MASS, MAX_HYPOTHESES)
    if feasible is not None:  # what is believed of pending points counts as feasible
        feasible = torch.cat([feasible[kept], torch.ones(len(y) - len(kept), dtype=torch.bool)])
    return turn, improvement(functions, y, maximize=maximize, feasible=feasible)


def _next_turn(
    prior: TuningPrior, x: Tensor, better: Tensor, num_pending: int, turns: Sequence[str], *, has_list: bool = True
) -> str:
    n, own = len(better), len(turns)
    if prior.num_trusting is None:
        return "mixture"
    has_list = has_list and prior.past is not None
    if has_list and (own < NUM_LIST or not n):
        return "list"
    shared = prior.regrets if has_list else None
    agrees = shared is not None and (n < MIN_ROWS or shared.agreement(x, better) >= 0.5)
    if agrees and n < MIN_LISTED:
        return "list"
    is_plain = (own - NUM_LIST) % (2 if own < LATE else 4) != 0
    explored = n + num_pending - own + turns.count("explore")
    stalled = n >= MIN_STALLED and bool(better[:-PATIENCE].max() >= better.max())
    if is_plain and stalled and explored < NUM_EXPLORED:
        return "explore"
    if n < MIN_ROWS:
        return "mixture"
    if is_plain:
        return "plain"
    return "list" if agrees and own // 2 % 2 == 0 else "past"


def _list_value(prior: TuningPrior, x: Tensor, better: Tensor, pending: Tensor) -> Value | None:
    """Mean over past tasks of the best so far, were a point added to those that were tried; None where none adds,
    and nothing is known of the task."""
    tried, weights = torch.cat([x, pending]), prior.task_weights
    if prior.regrets is not None:
        likeness = prior.regrets.likeness(x, better)
        likeness = likeness if weights is None else likeness * weights / (likeness @ weights)
        point = prior.regrets.next_point(tried, likeness)
        return None if point is None else Near(point)
    past = prior.past
    each = past.each(torch.cat([past.points, _sobol(prior.space, NUM_CANDIDATES)]))
    weights = torch.full_like(each[0], 1.0 / each.shape[-1]) if weights is None else weights
    best = past.each(tried).amax(0) if len(tried) else torch.full_like(each[0], -torch.inf)
    gain = ((each - best).clamp(min=0.0) @ weights).max()
    if not len(better) and gain <= LEAST_GAIN * ((best - each) @ weights).mean():
        return None
    return lambda x: torch.maximum(past.each(x), best) @ weights


def _space_filling_point(space: SearchSpace, number: int) -> Tensor:
    return _sobol(space, number + 1)[number]


def _sobol(space: SearchSpace, num: int) -> Tensor:
    return space.sobol(num, generator=Generator().manual_seed(0))


def _plain_value(own: OwnSpace, better: Tensor, feasible: Tensor | None) -> Value:
    posterior = plain_gp(own.x, better, max_rows=MAX_PLAIN_ROWS)
    y = cast(Data, posterior.rows).y
    y = y if feasible is None else y[feasible[some_rows(better, MAX_PLAIN_ROWS)]]
    if not len(y):
        return InOwnSpace(Expected(lambda points: points.new_zeros(len(points)), is_log=True))
    posterior, believed = believing(posterior, Data.of(own.x[:0], better[:0]), own.pending)
    best = torch.cat([y, believed]).max()
    return InOwnSpace(Expected(lambda points: log_expected_improvement(posterior.marginal(points), best), is_log=True))
