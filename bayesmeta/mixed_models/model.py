"""Mixed models from formulas: a table's groups as tasks, a prior for them, and what was learned as a table of effects.

    model = from_formula("Reaction ~ Days + (Days | Subject)", table)
    print(model.fit(restricted=True, hyperprior_weight=0.0))

A column in both parts has a weight that varies between groups, whose mean is the fixed effect; a column of the fixed
part alone has a weight that all groups share.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from bayesmeta.data.named_tasks import TaskTable, require_varying_target
from bayesmeta.data.rows import Data
from bayesmeta.data.tables import read_frame
from bayesmeta.glm.logistic import LogisticGaussian
from bayesmeta.glm.model import Regression
from bayesmeta.glm.poisson import PoissonGaussian
from bayesmeta.mixed_models.design import Design, Table
from bayesmeta.mixed_models.effects import Effects, effects_of_counts, effects_of_numbers
from bayesmeta.mixed_models.expressions import Expression
from bayesmeta.mixed_models.formula import parse
from bayesmeta.mixed_models.rows import Reader
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["FittedMixedModel", "MixedModel", "from_formula"]

FAMILIES: dict[str, Any] = {"gaussian": LinearGaussian, "binomial": LogisticGaussian, "poisson": PoissonGaussian}


def from_formula(
    formula: str,
    table: Any,
    *,
    family: str = "gaussian",
    offset: str | None = None,
    weights: str | None = None,
    noise_var: str | None = None,
) -> "MixedModel":
    """The hierarchical regression that a formula in lme4's notation describes, with the groups of a table as tasks.

    Args:
        formula: `response ~ fixed terms + (varying terms | group)`. The response is a column or an expression; with the
            binomial family also `successes / trials` or `cbind(successes, failures)`. Terms are columns, which are
            categories where they hold text, `C(x)` for categories that are numbers, `x:z`, `x*z`, functions such as
            `log(x)`, `poly(x, 2)` and `bs(x, df=4)`, arithmetic in `I(x / 10)`, `0` for no intercept, and
            `offset(log(time))`. Names with spaces stand in backticks.
        table: path of a Parquet or CSV file, or a dataframe of any kind that narwhals knows; one row per observation.
        family: "gaussian" for numbers, "binomial" for zeros and ones or successes among trials, "poisson" for counts.
        offset: a column or an expression that is added to the linear predictor as it is.
        weights: of rows, a column or an expression: the noise has variance residual / weight. With the binomial family
            the number of trials, the response being the share of successes.
        noise_var: a column or an expression with the known variance of each row's noise.

    Raises:
        ImportError: formulaic is not installed.
        TypeError: a formula or an expression is not a string.
        ValueError: the formula cannot be read, asks for crossed or nested groups, or does not fit the table.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(map(repr, FAMILIES))}; got {family!r}")
    read = parse(formula)
    data = Table(read_frame(table))
    reader = Reader(
        read,
        family,
        Design.of(read, data),
        (*read.offsets, *([] if offset is None else [_expression(offset, "offset")])),
        None if weights is None else _expression(weights, "weights"),
        None if noise_var is None else _expression(noise_var, "noise_var"),
    )
    rows = reader.rows(data)
    _require_learnable(rows, reader)
    columns = reader.columns
    roles = {role: getattr(columns, role) for role in reader.roles}
    prior = FAMILIES[family].initial(rows.data, shared=list(columns.shared), **roles)
    return MixedModel(reader, rows.data, rows.tasks, prior)


def _expression(text: Any, what: str) -> Expression:
    if not isinstance(text, str):
        raise TypeError(
            f"{what} must be a string, a column or an expression of columns such as 'log(time)'; "
            f"got {type(text).__name__}. Make it a column of the table"
        )
    return Expression.of(text, what)


def _require_learnable(rows: TaskTable, reader: Reader) -> None:
    """There are groups, groups have rows to tell them from noise, and the response varies."""
    group, count = reader.formula.group, len(rows.tasks)
    if count < 2:
        raise ValueError(f"group column {group!r} must name two groups or more; all rows are in {rows.tasks[0]!r}")
    design = reader.design
    levels = {reader.formula.columns[alias].name for alias in design.levels}
    if group in levels and "Intercept" in (design.names[i] for i in reader.columns.varying):
        raise ValueError(
            f"{group!r} has a fixed effect of each group, which leaves nothing that an intercept could vary by; "
            f"leave it out of the fixed part, or the intercept out of the other, as in (0 + x | {group})"
        )
    if reader.family != "gaussian":
        return
    if not reader.offsets:
        require_varying_target(rows.data, reader.formula.response.text)
    if reader.noise_var is None and int(rows.data.count.max()) == 1:
        raise ValueError(
            f"group column {group!r} must have a group with two rows or more; each of the {count} rows is a group "
            "of its own, so that groups cannot be told from noise. Known variances of rows can: noise_var='column'"
        )


@dataclass(frozen=True, eq=False, repr=False)
class MixedModel:
    """A hierarchical regression that a formula describes, with its rows; `fit` learns it.

    Args:
        reader: how rows of a table are read.
        tasks: the rows by group.
        groups: names of the groups, ascending: entry i is task i.
        prior: where learning starts; its `loc[i]` is the weight of `names[i]`.
    """

    reader: Reader
    tasks: Data
    groups: tuple[Any, ...]
    prior: LinearGaussian | Regression

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that have a weight, in the order of `prior.loc`."""
        return self.reader.design.names

    @property
    def shared(self) -> tuple[str, ...]:
        """Columns whose weight all groups share."""
        return tuple(self.names[i] for i in self.reader.design.shared)

    def fit(self, *, restricted: bool = False, hyperprior_weight: float = 1.0) -> "FittedMixedModel":
        """What the rows say of the weights and of how they vary.

        Args:
            restricted: integrate the fixed effects out while variances are learned; with `hyperprior_weight=0` this is
                REML, lme4's default for numbers. Gaussian family only.
            hyperprior_weight: 0 for plain maximum likelihood, as in lme4; 1 lets a weak prior keep variances from
                zero and infinity, better where groups are few.

        Raises:
            ValueError: `restricted` with another family.
        """
        if restricted and self.reader.family != "gaussian":
            raise ValueError(
                f"restricted maximum likelihood is of numbers; family is {self.reader.family!r}. Leave restricted out"
            )
        columns = self.reader.columns
        if isinstance(self.prior, LinearGaussian):
            found = self.prior.variance_components(
                self.tasks, restricted=restricted, hyperprior_weight=hyperprior_weight
            )
            return FittedMixedModel(self, found.prior, effects_of_numbers(found, columns), restricted)
        prior = self.prior.fit(self.tasks, hyperprior_weight=hyperprior_weight)
        return FittedMixedModel(self, prior, effects_of_counts(prior, self.tasks, columns), restricted)

    def rows(self, table: Any) -> TaskTable:
        """Rows of another table by group, coded as those of the first one: to condition on, or to judge predictions by.

        Raises:
            ValueError: a category occurs that the first table did not have.
        """
        return self.reader.rows(Table(read_frame(table)))

    def inputs(self, table: Any) -> Tensor:
        """x `(rows, columns)` of another table, in the order of its rows; it need not have the response.

        Successes are then predicted of one trial.
        """
        return torch.from_numpy(self.reader.inputs(Table(read_frame(table)), None))

    def __repr__(self) -> str:
        design, rows = self.reader.design, int(self.tasks.count.sum())
        varying = [name for name in self.names if name not in self.shared]
        return (
            f"MixedModel({self.reader.formula.text!r}, family={self.reader.family!r}): {rows} rows, "
            f"{len(self.groups)} groups of {design.formula.group}, {', '.join(varying)} varying"
            + (f", {', '.join(self.shared)} shared" if self.shared else "")
        )


class Prediction(NamedTuple):
    """Mean and standard deviation of y at each row, noise included, `(rows,)`."""

    mean: Tensor
    stddev: Tensor

    @property
    def variance(self) -> Tensor:
        return self.stddev.square()


@dataclass(frozen=True, eq=False, repr=False)
class FittedMixedModel:
    """What was learned of a mixed model; `print` shows it as a table.

    Args:
        model: what was fitted.
        prior: of the weights of a new group, with what is unknown of the fixed effects if `restricted`.
        effects: fixed effects with their standard errors, standard deviations and correlations of the others.
        restricted: whether the fixed effects were integrated out.
    """

    model: MixedModel
    prior: LinearGaussian | Regression
    effects: Effects
    restricted: bool

    @property
    def fixed_effects(self) -> dict[str, float]:
        """Weights of the columns of the fixed part, as the formula has them: means where they vary."""
        return self._of_formula(self.model.reader.design.to_fixed @ self.effects.loc.numpy())

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard errors of `fixed_effects`.

        For numbers the variances are taken as estimated; for counts what is unknown of them is counted too.
        """
        to_fixed = self.model.reader.design.to_fixed
        cov = to_fixed @ self.effects.loc_cov.numpy() @ to_fixed.T
        return self._of_formula(np.sqrt(cov.diagonal().clip(min=0.0)))

    @property
    def standard_deviations(self) -> dict[str, float]:
        """Between groups, of each weight that varies."""
        return dict(zip(self._varying, self.effects.scale.tolist(), strict=True))

    @property
    def correlations(self) -> Tensor:
        """Between groups, of the weights that vary, in the order of `standard_deviations`; zero where one does not."""
        return self.effects.correlations

    @property
    def residual(self) -> float | None:
        """Standard deviation of the noise of a row, of weight one; None where the family has none or it is known."""
        if not isinstance(self.prior, LinearGaussian) or self.model.reader.noise_var is not None:
            return None
        return float(self.prior.noise_var.sqrt())

    @property
    def log_likelihood(self) -> float:
        """Log likelihood of all rows, restricted (REML) if `restricted`."""
        return self.effects.log_likelihood

    def task(self, group: Any) -> LinearGaussian | Regression:
        """Posterior of a group's weights after its rows; predict with it by `model.inputs(table)`.

        Raises:
            ValueError: there is no such group. A new group has the weights of `prior`.
        """
        groups = self.model.groups
        if group not in groups:
            close = difflib.get_close_matches(str(group), names := [str(each) for each in groups], 1)
            hint = f"Did you mean {groups[names.index(close[0])]!r}? " if close else ""
            name = self.model.reader.formula.group
            raise ValueError(f"group {group!r} is not among the {len(groups)} of {name}. {hint}A new group has .prior")
        return self.tasks[groups.index(group)]

    @cached_property
    def tasks(self) -> LinearGaussian | Regression:
        """Posteriors of the weights of all groups, one batch, in the order of `model.groups`."""
        prior = self.effects.given_mean(cast(LinearGaussian, self.prior)) if self.restricted else self.prior
        return prior.condition(self.model.tasks)

    def predict(self, table: Any) -> Prediction:
        """What to expect of y at each row of a table, by the posterior of its group, or by `prior` where that is new.

        Of counts of successes the share, of counts over exposures the count. The table need not have the response.

        Raises:
            ValueError: a category is new, or groups have other types than in the first table.
        """
        data, reader = Table(read_frame(table)), self.model.reader
        x, places = torch.from_numpy(reader.inputs(data, None)), self._places(reader.groups(data))
        mean, var = x.new_empty(len(x)), x.new_empty(len(x))
        for rows, predict in (
            (places < 0, lambda: self.prior.predict(x[places < 0])),
            (places >= 0, lambda: self._by_group(x[places >= 0], places[places >= 0])),
        ):
            if bool(rows.any()):
                found = predict()
                mean[rows], var[rows] = found.mean.to(mean), found.variance.to(var)
        return Prediction(mean, var.sqrt())

    def _places(self, names: Sequence[Any]) -> Tensor:
        """Positions of groups among those of the model, -1 where a group is new."""
        places = {name: i for i, name in enumerate(self.model.groups)}
        like = {str(name): name for name in places}
        for row, name in enumerate(names):
            if name not in places and str(name) in like:
                group = self.model.reader.formula.group
                raise ValueError(
                    f"group column {group!r} must hold what the first table holds, such as {like[str(name)]!r}; "
                    f"row {row} holds {name!r}. Convert it"
                )
        return torch.tensor([places.get(name, -1) for name in names])

    def _by_group(self, x: Tensor, places: Tensor) -> Prediction:
        """Predictions at rows of known groups, in the order of the rows."""
        used, codes = places.unique(return_inverse=True)
        count, order = codes.bincount(), codes.argsort(stable=True)
        pieces = list(x[order].split(count.tolist()))
        # pads are rows of ones: any number does where a weight or an exposure may stand
        found = self.tasks[used].predict(torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=1.0))
        real, back = torch.arange(int(count.max())) < count[:, None], order.argsort()
        return Prediction(found.mean[real][back], found.variance[real][back].sqrt())

    @property
    def _varying(self) -> tuple[str, ...]:
        return tuple(self.model.names[i] for i in self.model.reader.columns.varying)

    def _of_formula(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.model.reader.design.fixed_names, values.tolist(), strict=True))

    def __repr__(self) -> str:
        return f"FittedMixedModel of {self.model!r}"

    def __str__(self) -> str:
        model, reader = self.model, self.model.reader
        how = "restricted likelihood" if self.restricted else "likelihood"
        lines = [
            f"{reader.family} mixed model: {reader.formula.text.strip()}",
            f"{int(model.tasks.count.sum())} rows, {len(model.groups)} groups of {reader.formula.group}; "
            f"log {how} {self.log_likelihood:.2f}",
            "",
            f"Varying between {reader.formula.group}",
        ]
        spreads = [[name, _digits(value)] for name, value in self.standard_deviations.items()]
        for i, row in enumerate(spreads):
            row += [f"{value:.2f}" for value in self.correlations[i, :i].tolist()]
        residual = [] if self.residual is None else [["residual", _digits(self.residual)]]
        lines += _aligned([["", "std. dev.", *(["corr."] if len(spreads) > 1 else [])], *spreads, *residual])
        errors = self.standard_errors
        fixed = [[name, f"{value:.4f}", f"{errors[name]:.4f}"] for name, value in self.fixed_effects.items()]
        lines += ["", "Fixed effects", *_aligned([["", "estimate", "std. error"], *fixed])]
        return "\n".join(lines)


def _digits(value: float) -> str:
    return f"{value:#.5g}".rstrip(".")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: names to the left, numbers to the right."""
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(max(map(len, rows)))]
    return [
        "  " + "  ".join(cell.rjust(widths[i]) if i else cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()
        for row in rows
    ]
