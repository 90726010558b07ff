"""What `bo` brings to the command `bayesmeta`: learn a prior from past tasks, look at one, plot it, try it.

Whatever takes long to import is imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study
    from rich.console import Console
    from rich.table import Table

    from bo.priors.tuning_prior import TuningPrior

__all__ = ["demo", "fit", "plot", "show"]

WIDTH = 100  # of tables where there is no terminal to ask
DPI = 150  # of plots
NUM_NAMED = 5  # studies in a message
NEARLY_EVERY, FEW_ROWS = 0.95, 5  # share of rows that differ in a column that may be a result; rows too few to tell
VALUES_WIDTH, MOST_WIDTH = 40, 10_000  # of a table that is piped: of its column of values, and of all of it, at most
TABLES = (".parquet", ".pq", ".csv")


Direction = Literal["minimize", "maximize"]
Prior = Annotated[Path, typer.Argument(metavar="PRIOR", help="A file that `bayesmeta fit` or bayesmeta.save wrote.")]


def fit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A Parquet or CSV file with one row per evaluated configuration, or an Optuna storage, by its URL or "
            "its file (SQLite or a journal), in which each study with completed trials is a task.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, such as prior.safetensors.")],
    task: Annotated[str | None, typer.Option(help="Column that names the task (tables only).")] = None,
    target: Annotated[str | None, typer.Option(help="Column of the objective (tables only).")] = None,
    direction: Annotated[Direction | None, typer.Option(help="Of the objective (tables only).")] = None,
    params: Annotated[
        str | None, typer.Option(help="Parameter columns, comma-separated (tables only).  [default: all others]")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="What is known of tasks beforehand, comma-separated: columns of a table, or user attributes of "
            "studies, that are numbers such as the rows of a data set."
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="A family to learn, by its class, such as TransformerNeuralProcess or LearnedFeatures.  [default: the "
            "hypotheses of MetaSampler, which a past that misleads cannot mislead]"
        ),
    ] = None,
) -> None:
    """Learn a prior for tuning from past tasks."""
    from bo.priors.storage_kinds import kind_of_storage

    learn: Callable[[Any], TuningPrior]
    if kind_of_storage(source):
        given = {"--task": task, "--target": target, "--direction": direction, "--params": params}
        for name in (name for name, value in given.items() if value):
            raise typer.BadParameter(f"{name} is for tables; the studies of a storage say it themselves")
        learn = partial(_from_storage, source, _names(features), family)
    elif Path(source).suffix.lower() not in TABLES:
        raise _no_source(Path(source))
    elif task and target and direction:
        learn = partial(_from_table, source, task, target, direction, _names(params), _names(features), family)
    else:
        raise typer.BadParameter("a table needs --task, --target and --direction")
    with _spinner("starting") as status:
        from bayesmeta.io import require_place, save
        from bo.insight.tables import in_words

        if require_place(out) == Path(source.rpartition(":///")[2]).resolve():  # before the work rather than after it
            raise ValueError(f"cannot save to {out}: it is what is learned from. Name another file")
        prior = learn(status)
        save(prior, out)
    learned_from = prior.learned_from
    if learned_from:
        typer.echo(f"learned from {learned_from.tasks} tasks, {learned_from.rows} rows, to {prior.direction}")
    typer.echo("parameters:")
    longest = max(map(len, prior.space.names))
    for name, distribution in prior.space.distributions.items():
        typer.echo(f"  {name:{longest}}  {in_words(distribution)}")
    if prior.feature_names:
        typer.echo(f"features of tasks: {', '.join(prior.feature_names)}")
    typer.echo(f"wrote {out}")


def show(path: Prior) -> None:
    """Say what a saved prior was learned from and what it expects."""
    with _spinner("reading"):
        from bayesmeta.io import load, read_header
        from bo.insight.tables import expectations, hyperparameters, likeness
        from bo.priors.tuning_prior import TuningPrior

        header, prior = read_header(path), load(path)
        learned_from = header["learned_from"] or {}
        typer.echo(f"family     {header['family']}")
        typer.echo(f"tasks      {learned_from.get('tasks', 'not learned from tasks')}")
        typer.echo(f"rows       {learned_from.get('rows', '-')}")
        typer.echo(f"written by {', '.join(f'{name} {version}' for name, version in header['versions'].items())}")
        if isinstance(prior, TuningPrior):
            typer.echo(f"direction  {prior.direction}")
            found = likeness(prior)
            shown = [expectations(prior), *([found] if found else [])]
        else:
            shown = [hyperparameters(prior)]
    for table in shown:
        _print(table)


def plot(
    path: Prior,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the plots, PNG files; made if need be.")],
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage of a running study, by its URL, such as sqlite:///studies.db, or its file."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of that study: which past tasks is it like?")] = None,
) -> None:
    """Plot what a prior for tuning believes.

    surface.png is what it expects of the two parameters that matter most, importance.png how much each parameter
    matters in past tasks, and, for a study, resemblance.png which past tasks that is like so far.
    """
    if (storage is None) != (study is None):
        raise typer.BadParameter("--storage and --study go together")
    with _spinner("starting") as status:
        from bayesmeta.io import folder, load, write_whole
        from bo.insight.plots import plot_importance, plot_prior_surface, plot_resemblance
        from bo.priors.tuning_prior import TuningPrior

        status.update("reading")
        prior = load(path)
        if not isinstance(prior, TuningPrior):
            raise ValueError(f"only priors for tuning can be plotted; {path} holds a {type(prior).__name__}")
        draw = {"surface.png": partial(plot_prior_surface, prior), "importance.png": partial(plot_importance, prior)}
        if storage and study:
            draw["resemblance.png"] = partial(plot_resemblance, prior, _study(storage, study))
        pictures = {}  # all of them, before the first is written
        for name, each in draw.items():
            status.update(f"drawing {name}")
            pictures[name] = _png(each)
        folder(out)
        for name, picture in pictures.items():
            write_whole(out / name, picture)
            typer.echo(f"wrote {out / name}")


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for demo.json, demo.png and the prior; made if need be.")
    ],
    budget: Annotated[
        Literal["full", "quick"], typer.Option(help="full is what the README shows, quick a small share of it.")
    ] = "full",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes.  [default: one per core]")] = None,
) -> None:
    """Learn from past tuning tasks, then tune on data sets that none of them used, against three methods."""
    with _spinner("starting"):
        from bo.replay.demo import Budget, run
    run(out, Budget.named(budget), _console(), jobs=jobs)


def _names(listed: str | None) -> list[str]:
    names = [name.strip() for name in listed.split(",")] if listed else []
    if not all(names):
        raise ValueError(f"names must be separated by one comma each, as in rate,depth; got {listed!r}")
    return names


def _no_source(path: Path) -> Exception:
    """The error that says why a path is nothing to learn from."""
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in TABLES)
        inside = f", such as {' or '.join(files[:NUM_NAMED])}" if files else ""
        return ValueError(f"{path} is a directory. Name one file{inside}")
    if not path.exists():
        return FileNotFoundError(f"{path} does not exist")
    return ValueError(
        f"{path} is no table or storage: a table is a file {' or '.join(TABLES)}, a storage one of SQLite or a journal "
        "that Optuna made. Convert it"
    )


def _from_storage(url: str, features: list[str], family: str | None, status: Any) -> "TuningPrior":
    from bo.priors.storage import load_studies
    from bo.priors.tuning_prior import TuningPrior

    status.update("looking for studies")
    studies = load_studies(url)
    for number, study in enumerate(studies, 1):
        status.update(f"reading study {number} of {len(studies)}")
        study.get_trials(deepcopy=False)  # the longest part; Optuna keeps what has been read
    status.update(f"learning a prior from {len(studies)} studies")
    return TuningPrior.from_studies(studies, features=features, fit=_fit_of(family, status))


def _from_table(
    source: str,
    task: str,
    target: str,
    direction: str,
    params: list[str],
    features: list[str],
    family: str | None,
    status: Any,
) -> "TuningPrior":
    from bayesmeta.data.csv_tables import naming_lines
    from bayesmeta.data.tables import read_frame
    from bo.priors.table_tasks import require_roles
    from bo.priors.tuning_prior import TuningPrior
    from bo.space.search_space import SearchSpace

    status.update(f"reading {source}")
    with naming_lines(source):
        frame = read_frame(source).to_native()
        status.update(f"learning a prior from {len(frame)} rows")
        require_roles(task, target, features, params)  # before the space is inferred from them
        space = SearchSpace.infer(frame, params) if params else None
        columns: dict[str, Any] = {"task": task, "target": target, "features": features}
        prior = TuningPrior.from_table(frame, **columns, direction=direction, space=space, fit=_fit_of(family, status))
        if not params and (doubtful := _like_results(frame, task, prior.space.names)):
            status.console.print(
                f"note: {', '.join(doubtful)}: taken as parameters, numbers that differ in nearly every row. If one is "
                "a result, such as a time or another score, it gives the target away: name the parameters by --params",
                soft_wrap=True,
            )
    return prior


def _fit_of(family: str | None, status: Any) -> Callable[..., "TuningPrior"] | None:
    """How a family is learned, None for the prior's own way."""
    if family is None:
        return None
    from bayesmeta.io import family_of
    from bo.priors.families import fit_of

    fit = fit_of(family_of(family))

    def shown(*args: Any, **kwargs: Any) -> "TuningPrior":
        status.stop()  # a family that takes long shows its own progress
        return fit(*args, **kwargs)

    return shown


def _like_results(frame: Any, task: str, params: Sequence[str]) -> list[str]:
    """Columns of numbers that differ in nearly every row of a task, as results do, and random parameters too."""
    import polars as pl

    rows = pl.DataFrame(frame).with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))
    numbers = [name for name in params if rows[name].dtype.is_numeric()]
    each = rows.group_by(task).agg(
        *(pl.col(name).drop_nulls().n_unique().alias(f"{i} different") for i, name in enumerate(numbers)),
        *(pl.col(name).count().alias(f"{i} there") for i, name in enumerate(numbers)),
    )
    totals = [(int(each[f"{i} different"].sum()), int(each[f"{i} there"].sum())) for i in range(len(numbers))]
    return [
        name
        for name, (different, there) in zip(numbers, totals, strict=True)
        if there >= FEW_ROWS * len(each) and different >= NEARLY_EVERY * there
    ]


def _study(url: str, name: str) -> "Study":
    from bo.priors.storage import load_studies

    studies = {study.study_name: study for study in load_studies(url)}
    if name not in studies:
        known = ", ".join(map(repr, list(studies)[:NUM_NAMED])) or "none"
        more = f" and {len(studies) - NUM_NAMED} more" if len(studies) > NUM_NAMED else ""
        raise ValueError(f"the storage has no study {name!r}; its studies are {known}{more}")
    return studies[name]


def _png(draw: Callable[..., "Axes"]) -> bytes:
    """What is drawn, by a figure that needs no screen."""
    from io import BytesIO

    import matplotlib

    matplotlib.use("Agg")
    figure: Any = draw().figure
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    return drawn.getvalue()


def _print(table: "Table") -> None:
    """As wide as the terminal; where it is piped, as wide as its names take, so that each row is one line."""
    from rich.measure import Measurement

    console = _console()
    if not console.is_terminal:
        for column in table.columns:
            column.max_width = VALUES_WIDTH if column.header == "values" else None
        wanted = Measurement.get(console, console.options.update(max_width=MOST_WIDTH), table).maximum
        console.width = max(WIDTH, wanted)
    console.print(table)


def _console() -> "Console":
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=WIDTH)


@contextmanager
def _spinner(text: str) -> Iterator[Any]:
    """On stderr, and only where that is a terminal."""
    from rich.console import Console

    with Console(stderr=True, markup=False).status(text) as status:
        yield status
