"""Past tasks from a table in long form: which column is what, the search space, and the rows encoded by it."""

from collections.abc import Sequence
from typing import Any

import narwhals as nw

from bayesmeta.data.csv_tables import not_numbers
from bayesmeta.data.rows import Data
from bo.space.search_space import SearchSpace

__all__ = ["require_roles", "tasks_of_table"]

MIN_NAMED = 10  # rows, from which words that all differ are names of rows


def require_roles(task: str, target: str, features: Sequence[str], params: Sequence[str]) -> None:
    """Raises a ValueError where a column has two roles: a parameter that is the target would give the answer away."""
    roles = {task: "the task"}
    named = [(target, "the target"), *((name, "a feature") for name in features), *((n, "a parameter") for n in params)]
    for name, role in named:
        if roles.get(name) == role:
            raise ValueError(f"column {name!r} is named twice as {role}; name it once")
        if name in roles:
            raise ValueError(f"column {name!r} cannot be both {roles[name]} and {role}; leave one of the two out")
        roles[name] = role


def tasks_of_table(
    source: Any, task: str, target: str, features: Sequence[str], space: SearchSpace | None
) -> tuple[SearchSpace, Data, list[str]]:
    """The space of a table, its tasks encoded by it, and their names."""
    from bayesmeta.data.named_tasks import read_tasks
    from bayesmeta.data.tables import read_frame, require_numbers

    frame = read_frame(source)
    for name in (task, target, *features, *(space.names if space else ())):
        if name not in frame.columns:
            raise ValueError(f"column {name!r} does not exist: the columns are {', '.join(frame.columns)}")
    require_roles(task, target, features, space.names if space else ())
    if not len(frame):
        raise ValueError("the table has no rows")
    require_numbers(frame, task, {target: "target"} | dict.fromkeys(features, "feature"))
    if space is None:
        others = (task, target, *features)
        parameters = [name for name in frame.columns if name not in others]
        _require_repeated(frame, parameters)
        space = SearchSpace.infer(frame.to_native(), parameters)
    x = space.to_unit(frame.select(*space.names).iter_rows(named=True))
    columns = {f"x{i}": column.numpy() for i, column in enumerate(x.mT)}
    columns |= {f"feature{i}": frame[name] for i, name in enumerate(features)}
    encoded = nw.from_dict({task: frame[task], target: frame[target], **columns}, backend="polars")
    tasks = read_tasks(encoded, task=task, target=target, inputs=list(columns))
    names = [str(name) for name in tasks.tasks]
    return space, _with_features(tasks.data, names, features) if features else tasks.data, names


def _require_repeated(frame: Any, columns: Sequence[str]) -> None:
    """Words that differ in every row number the rows: they are no choices."""
    num = len(frame)
    for name in columns:
        if num < MIN_NAMED or frame[name].dtype != nw.String or frame[name].n_unique() < num:
            continue
        # where most are numbers, `SearchSpace.infer` says which cells are bad
        if 2 * len(not_numbers(frame[name].to_list())) >= num:
            raise ValueError(
                f"column {name!r} differs in every row, as names of runs do, and so says nothing of a new trial. Leave "
                "it out, or say which columns are parameters"
            )


def _with_features(tasks: Data, names: Sequence[str], features: Sequence[str]) -> Data:
    """The last columns of x as features of the tasks."""
    x, values = tasks.x.split([tasks.x.shape[-1] - len(features), len(features)], -1)
    first = values[:, 0]
    for i, j in ((values != first[:, None]) & tasks.mask[..., None]).any(1).nonzero().tolist():
        raise ValueError(
            f"feature {features[j]!r} must be the same in all rows of a task; it is not in those of {names[i]!r}"
        )
    return Data(x, tasks.y, tasks.mask, first)
