"""Formulas: what they stand for in a table and in later ones, what they refuse, and that none of them runs code."""

import builtins
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
import torch

import bayesmeta as bm
from bayesmeta.data.tables import read_frame
from bayesmeta.mixed_models.design import Design, Table
from bayesmeta.mixed_models.formula import parse
from bayesmeta.mixed_models.model import MixedModel
from tests.seeds import shifted

approx = pytest.approx


def table(num_groups: int = 12, num_rows: int = 8, number: int = 0) -> pl.DataFrame:
    """Groups with an intercept and a slope of their own, categories of two kinds, weights and exposures.

    Groups differ by so much more than noise that no variance is estimated as zero, whatever the seed.
    """
    rng = np.random.default_rng(shifted(number))
    n = num_groups * num_rows
    group = np.repeat(np.arange(num_groups), num_rows)
    x, time = rng.normal(size=n), rng.uniform(0.5, 4.0, n)
    level, slope = rng.normal(size=num_groups)[group], 0.5 * rng.normal(size=num_groups)[group]
    trials = rng.integers(3, 20, n)
    kind = rng.permutation(np.arange(n) % 3)
    return pl.DataFrame(
        {
            "y": 2.0 + level + (1.0 + slope) * x + 0.3 * kind + 0.15 * rng.normal(size=n),
            "x": x,
            "kind": np.array(["b", "c", "a"])[kind],
            "code": kind + 1,
            "time": time,
            "spaced name": x**2,
            "dotted.name": np.cos(x),
            "flag": kind > 0,
            "trials": trials,
            "hits": rng.binomial(trials, 1.0 / (1.0 + np.exp(-0.8 * level - 0.5 * x))),
            "count": rng.poisson(time * np.exp(1.0 + 0.8 * level + 0.2 * x)),
            "group": [f"g{i:02d}" for i in group],
        }
    )


TABLE = table()


def design(formula: str, frame: Any = TABLE) -> tuple[Design, np.ndarray]:
    data = Table(read_frame(frame))
    found = Design.of(parse(formula), data)
    return found, found(data)


# ---- which columns a formula stands for


@pytest.mark.parametrize(
    ("formula", "names", "shared"),
    [
        ("y ~ x + (x | group)", ["Intercept", "x"], []),
        ("y ~ x + (1 + x | group)", ["Intercept", "x"], []),
        ("y ~ x + (1 | group)", ["Intercept", "x"], ["x"]),
        ("y ~ x + (0 + x | group)", ["Intercept", "x"], ["Intercept"]),
        ("y ~ x + (x - 1 | group)", ["Intercept", "x"], ["Intercept"]),
        ("y ~ x + (1 || group)", ["Intercept", "x"], ["x"]),
        ("y ~ group + x + (0 + x | group)", None, None),
        ("y ~ (1 | group)", ["Intercept"], []),
        ("y ~ 1 + (1 | group)", ["Intercept"], []),
        ("y ~ 0 + x + (0 + x | group)", ["x"], []),
        ("y ~ -1 + x + (x - 1 | group)", ["x"], []),
        ("y ~ x - 1 + (0 + x | group)", ["x"], []),
        ("y ~ + x + ((1 | group))", ["Intercept", "x"], ["x"]),
        ("y ~ kind + (1 | group)", ["Intercept", "kind[T.b]", "kind[T.c]"], ["kind[T.b]", "kind[T.c]"]),
        ("y ~ C(code) + (1 | group)", ["Intercept", "C(code)[T.2]", "C(code)[T.3]"], ["C(code)[T.2]", "C(code)[T.3]"]),
        ("y ~ factor(code) + (1 | group)", ["Intercept", "C(code)[T.2]", "C(code)[T.3]"], None),
        ("y ~ code + (1 | group)", ["Intercept", "code"], ["code"]),
        ("y ~ flag + (1 | group)", ["Intercept", "flag"], ["flag"]),
        ("y ~ x * code + (x | group)", ["Intercept", "x", "code", "x:code"], ["code", "x:code"]),
        ("y ~ (x + code)^2 + (1 | group)", ["Intercept", "x", "code", "x:code"], None),
        ("y ~ x:kind + (1 | group)", ["Intercept", "x:kind[a]", "x:kind[b]", "x:kind[c]"], None),
        ("y ~ poly(x, 2) + (1 | group)", ["Intercept", "poly(x, 2)[1]", "poly(x, 2)[2]"], None),
        ("y ~ I(x^2) + np.log(time) + (1|group)", ["Intercept", "I(x ** 2)", "log(time)"], None),
        ("y ~ {x + 1} + (1 | group)", ["Intercept", "I(x + 1)"], None),
        ("y ~ `spaced name` + log(`spaced name` + 1) + (1 | group)", None, None),
        ("y ~ dotted.name + exp(dotted.name) + (1 | group)", ["Intercept", "dotted.name", "exp(dotted.name)"], None),
        ("y ~ bs(x, df=4) + (1 | group)", ["Intercept", *(f"bs(x, df=4)[{i}]" for i in range(1, 5))], None),
    ],
)
def test_columns(formula: str, names: list[str] | None, shared: list[str] | None) -> None:
    found, columns = design(formula)
    assert columns.shape == (len(TABLE), len(found.names))
    assert names is None or list(found.names) == names
    assert shared is None or [found.names[i] for i in found.shared] == shared
    assert found.fixed_names == found.names


def test_columns_have_the_values_that_the_formula_says() -> None:
    found, columns = design("y ~ x * C(code) + log(time) + I(x^3 / 2) + `spaced name` + flag:time + (1 | group)")
    x, code, time = (TABLE[name].to_numpy() for name in ("x", "code", "time"))
    expected = {
        "Intercept": np.ones(len(TABLE)),
        "x": x,
        "C(code)[T.2]": code == 2,
        "C(code)[T.3]": code == 3,
        "x:C(code)[T.2]": x * (code == 2),
        "x:C(code)[T.3]": x * (code == 3),
        "log(time)": np.log(time),
        "I(x ** 3 / 2)": x**3 / 2,
        "spaced name": x**2,
        "flag:time": time * (code > 1),
    }
    assert set(found.names) == set(expected)
    for name, column in zip(found.names, columns.T, strict=True):
        np.testing.assert_allclose(column, np.asarray(expected[name], dtype=float), rtol=1e-14)


def test_contrasts_and_levels() -> None:
    found, columns = design("y ~ C(code, contr.treatment(base=2)) + (1 | group)")
    np.testing.assert_array_equal(columns[:, 1], TABLE["code"].to_numpy() == 1)
    found, columns = design("y ~ C(kind, contr.sum) + (1 | group)")
    assert set(columns[:, 1]) == {-1.0, 0.0, 1.0}
    assert len(found.names) == 3
    found, columns = design("y ~ C(code, levels=[3, 1, 2]) + (1 | group)")
    np.testing.assert_array_equal(columns[:, 1], TABLE["code"].to_numpy() == 1)


def test_a_column_may_have_the_name_of_a_function() -> None:
    frame = TABLE.rename({"time": "log"})
    np.testing.assert_array_equal(
        design("y ~ log(log) + (1 | group)", frame)[1][:, 1], np.log(TABLE["time"].to_numpy())
    )


def test_a_column_may_have_the_name_of_a_word_of_python() -> None:
    frame = TABLE.rename({"time": "class", "code": "in"})
    found, columns = design("y ~ log(class) + class + C(in) + (1 | group)", frame)
    assert found.names == ("Intercept", "log(class)", "class", "C(in)[T.2]", "C(in)[T.3]")
    np.testing.assert_array_equal(columns[:, 1], np.log(TABLE["time"].to_numpy()))


def test_another_coding_of_what_varies_gives_the_same_fit() -> None:
    """Levels with an intercept each, whose means are those of the treatment coding of the fixed part."""
    rng, group = np.random.default_rng(shifted(0)), np.repeat(np.arange(12), 12)
    kind = np.tile(np.arange(3), 48)
    y = rng.normal(size=(12, 3))[group, kind] + 0.2 * rng.normal(size=144)
    frame = pl.DataFrame({"y": y, "kind": np.array(list("abc"))[kind], "group": group})
    one = bm.from_formula("y ~ 0 + kind + (0 + kind | group)", frame)
    other = bm.from_formula("y ~ kind + (0 + kind | group)", frame)
    assert other.names == one.names
    fits = [model.fit(hyperprior_weight=0.0) for model in (one, other)]
    levels, contrasts = (list(fit.fixed_effects.values()) for fit in fits)
    assert list(fits[1].fixed_effects) == ["Intercept", "kind[T.b]", "kind[T.c]"]
    assert contrasts == approx([levels[0], levels[1] - levels[0], levels[2] - levels[0]], rel=1e-6)
    assert fits[1].log_likelihood == approx(fits[0].log_likelihood, rel=1e-9)
    cov = fits[0].effects.loc_cov
    assert fits[1].standard_errors["kind[T.b]"] ** 2 == approx(float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]), rel=1e-6)


@pytest.mark.parametrize("make", [lambda t: t, lambda t: t.to_pandas(), lambda t: t.to_arrow()])
def test_tables_of_any_kind(make: Any) -> None:
    formula = "y ~ x * kind + C(code) + flag + (x | group)"
    expected, model = (bm.from_formula(formula.replace(" + C(code) + flag", ""), t) for t in (TABLE, make(TABLE)))
    assert model.names == expected.names
    assert model.groups == tuple(f"g{i:02d}" for i in range(12))
    assert torch.equal(model.tasks.x, expected.tasks.x)
    assert torch.equal(model.tasks.y, expected.tasks.y)


def test_a_table_from_a_file(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "table.csv")
    model = bm.from_formula("y ~ x + (x | group)", tmp_path / "table.csv")
    torch.testing.assert_close(model.tasks.x, bm.from_formula("y ~ x + (x | group)", TABLE).tasks.x)


@pytest.mark.parametrize(
    "categories",
    [
        lambda v: pd.Series(pd.Categorical(v, categories=["z", "c", "b", "a"])),
        lambda v: pl.Series(v, dtype=pl.Enum(["z", "c", "b", "a"])),
    ],
)
def test_categories_keep_their_order_and_lose_those_without_rows(categories: Any) -> None:
    series = categories(TABLE["kind"].to_list())
    frame = TABLE.to_pandas().assign(kind=series) if isinstance(series, pd.Series) else TABLE.with_columns(kind=series)
    found, columns = design("y ~ kind + (1 | group)", frame)
    assert found.names == ("Intercept", "kind[T.b]", "kind[T.a]")
    np.testing.assert_array_equal(columns[:, 1], TABLE["kind"].to_numpy() == "b")


def test_groups_may_be_numbers_categories_or_few() -> None:
    numbered = TABLE.with_columns(group=pl.col("group").str.slice(1).cast(pl.Int32) + 8)
    assert bm.from_formula("y ~ (1 | group)", numbered).groups == tuple(range(8, 20))
    spaced = TABLE.rename({"group": "the group"}).to_pandas().astype({"the group": "category"})
    assert bm.from_formula("y ~ (1 | `the group`)", spaced).groups == tuple(f"g{i:02d}" for i in range(12))


def test_one_row_of_a_group_is_enough_where_others_have_more() -> None:
    model = bm.from_formula("y ~ x + (1 | group)", TABLE[7:])
    assert model.tasks.count.tolist() == [1, *[8] * 11]
    assert np.isfinite(model.fit().log_likelihood)


# ---- what is learned


def dense(model: MixedModel, fit: bm.FittedMixedModel) -> tuple[float, float]:
    """Log likelihood and restricted log likelihood from the covariance of all rows, written out."""
    d = len(model.names)
    cov, loc = fit.effects.cov.numpy(), fit.effects.loc.numpy()
    covs, rows, targets = [], [], []
    for i, count in enumerate(model.tasks.count.tolist()):
        x = model.tasks.x[i, :count].numpy()
        place = 0 if model.reader.columns.offset is None else x[:, model.reader.columns.offset]
        noise = np.full(count, float(fit.prior.noise_var))
        if model.reader.columns.weight is not None:
            noise = noise / x[:, model.reader.columns.weight]
        if model.reader.columns.noise_var is not None:
            noise = noise * x[:, model.reader.columns.noise_var]
        x = x[:, :d]
        covs.append(x @ cov @ x.T + np.diag(noise))
        rows.append(x)
        targets.append(model.tasks.y[i, :count].numpy() - place)
    v, x, y = scipy.linalg.block_diag(*covs), np.concatenate(rows), np.concatenate(targets)
    information = x.T @ np.linalg.solve(v, x)
    gls = np.linalg.solve(information, x.T @ np.linalg.solve(v, y))
    np.testing.assert_allclose(loc, gls, rtol=1e-5)
    np.testing.assert_allclose(fit.effects.loc_cov.numpy(), np.linalg.inv(information), rtol=1e-7)
    plain = scipy.stats.multivariate_normal(x @ loc, v).logpdf(y)
    best = scipy.stats.multivariate_normal(x @ gls, v).logpdf(y)
    return plain, best + 0.5 * d * np.log(2.0 * np.pi) - 0.5 * np.linalg.slogdet(information)[1]


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + kind + (x | group)", {}),
        ("y ~ x + kind + (1 | group) + offset(log(time))", {}),
        ("y ~ x + (1 | group)", {"weights": "trials", "offset": "time / 2"}),
        ("y ~ x + (1 | group)", {"noise_var": "time / 100"}),
    ],
)
def test_likelihoods_and_effects_agree_with_the_covariance_of_all_rows(
    formula: str, options: dict[str, str], restricted: bool
) -> None:
    model = bm.from_formula(formula, TABLE, **options)
    fit = model.fit(restricted=restricted, hyperprior_weight=0.0)
    plain, limited = dense(model, fit)
    assert fit.log_likelihood == approx(limited if restricted else plain, rel=1e-9)


@pytest.mark.parametrize("rows", [[8] * 12, [20, 20], [5000, 3, 3, 3, 3], [2] * 40])
def test_a_prior_that_carries_the_fixed_effects_is_told_apart(rows: list[int]) -> None:
    """Its covariance is that between groups, as estimated, and that of the fixed effects: also with few groups, or one
    that has nearly all rows."""
    rng = np.random.default_rng(shifted(1))
    group = np.repeat(np.arange(len(rows)), rows)
    y = 3.0 * rng.normal(size=len(rows))[group] + 0.5 * rng.normal(size=len(group))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.LimitWarning)
        fit = bm.from_formula("y ~ 1 + (1 | g)", pl.DataFrame({"y": y, "g": group})).fit(
            restricted=True, hyperprior_weight=0.0
        )
    whole = float(1.0 / fit.prior.precision[0, 0])
    between = float(fit.effects.cov[0, 0])
    assert between + float(fit.effects.loc_cov[0, 0]) == approx(whole, rel=1e-10)

    def restricted(variance: float) -> float:
        """Of means of groups about their common mean."""
        var = variance + fit.residual**2 / np.array(rows)
        means = np.array([y[group == g].mean() for g in range(len(rows))])
        centre = (means / var).sum() / (1.0 / var).sum()
        return -0.5 * (np.log(var).sum() + ((means - centre) ** 2 / var).sum() + np.log((1.0 / var).sum()))

    assert restricted(between) >= max(restricted(between * factor) for factor in (0.98, 1.02)) - 1e-8


def test_columns_far_from_zero_change_the_intercept_alone() -> None:
    near, far = (
        bm.from_formula("y ~ x + (x | group)", TABLE.with_columns(x=pl.col("x") + shift)).fit(
            restricted=True, hyperprior_weight=0.0
        )
        for shift in (0.0, 2000.0)
    )
    assert far.log_likelihood == approx(near.log_likelihood, abs=1e-6)
    assert far.fixed_effects["x"] == approx(near.fixed_effects["x"], rel=1e-6)
    assert far.standard_errors["x"] == approx(near.standard_errors["x"], rel=1e-6)
    assert far.standard_deviations["x"] == approx(near.standard_deviations["x"], rel=1e-5)


def test_the_posterior_of_a_group_is_its_best_predictor() -> None:
    """Henderson's: Sigma Z'V^-1 (y - X beta) about the fixed effects, which the group's own rows do not move again."""
    model = bm.from_formula("y ~ x + kind + (x | group)", TABLE)
    fit = model.fit(restricted=True, hyperprior_weight=0.0)
    x, y = model.tasks.x[3].numpy(), model.tasks.y[3].numpy()
    cov, loc = fit.effects.cov.numpy(), fit.effects.loc.numpy()
    v = x @ cov @ x.T + fit.residual**2 * np.eye(len(y))
    expected = loc + cov @ x.T @ np.linalg.solve(v, y - x @ loc)
    np.testing.assert_allclose(fit.task("g03").loc.numpy(), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"Did you mean 'g03'\? A new group has .prior"):
        fit.task("g03x")


def test_counts_of_successes_however_they_are_written() -> None:
    frame = TABLE.with_columns(share=pl.col("hits") / pl.col("trials"), misses=pl.col("trials") - pl.col("hits"))
    models = [
        bm.from_formula(f"{left} ~ x + (1 | group)", frame, family="binomial", **options)
        for left, options in [
            ("hits / trials", {}),
            ("cbind(hits, misses)", {}),
            ("cbind(hits, trials - hits)", {}),
            ("share", {"weights": "trials"}),
        ]
    ]
    for model in models[1:]:
        torch.testing.assert_close(model.tasks.x, models[0].tasks.x)
        assert torch.equal(model.tasks.y, models[0].tasks.y)
    rows = frame.select(pl.all().repeat_by("trials").explode())
    number = rows.select(pl.int_range(pl.len()).over("group", "x")).to_series()
    single = bm.from_formula(
        "one ~ x + (1 | group)", rows.with_columns(one=(number < rows["hits"]).cast(pl.Int8)), family="binomial"
    )
    fits = [model.fit() for model in (models[0], single)]
    assert list(fits[0].fixed_effects.values()) == approx(list(fits[1].fixed_effects.values()), abs=1e-4)


def test_counts_over_exposures() -> None:
    """An exposure that is the same in all rows moves the intercept by its logarithm."""
    options = {"family": "poisson"}
    plain = bm.from_formula("count ~ x + (1 | group)", TABLE, **options).fit(hyperprior_weight=0.0)
    ten = bm.from_formula("count ~ x + (1 | group) + offset(log(10 * I(time / time)))", TABLE, **options)
    fit = ten.fit(hyperprior_weight=0.0)
    assert fit.fixed_effects["Intercept"] == approx(plain.fixed_effects["Intercept"] - np.log(10.0), abs=1e-4)
    assert fit.fixed_effects["x"] == approx(plain.fixed_effects["x"], abs=1e-4)
    exposed = [
        bm.from_formula(left, TABLE, **options, **more)
        for left, more in [
            ("count ~ x + offset(log(time)) + (1 | group)", {}),
            ("count ~ x + (1 | group)", {"offset": "log(time)"}),
        ]
    ]
    assert torch.equal(exposed[0].tasks.x, exposed[1].tasks.x)
    torch.testing.assert_close(exposed[0].tasks.x[..., 2].exp().sum(), torch.tensor(TABLE["time"].sum()).double())


def test_what_is_printed() -> None:
    fit = bm.from_formula("y ~ x + kind + (x | group)", TABLE).fit(restricted=True, hyperprior_weight=0.0)
    text = str(fit)
    assert text.startswith(
        "gaussian mixed model: y ~ x + kind + (x | group)\n96 rows, 12 groups of group; log restricted"
    )
    for name in ("Varying between group", "std. dev.", "corr.", "residual", "Fixed effects", "std. error", "kind[T.b]"):
        assert name in text
    assert len(repr(fit).splitlines()) == 1
    assert "kind[T.b], kind[T.c] shared" in repr(fit.model)


# ---- later tables


def test_later_tables_have_the_coding_of_the_first() -> None:
    formula = "y ~ poly(x, 2) + bs(time, df=4) + scale(trials) + kind + C(code) + (1 | group)"
    formula = formula.replace(" + C(code)", "")  # which kind determines
    model = bm.from_formula(formula, TABLE)
    later = TABLE[[7, 3, 40]]
    assert len(set(later["kind"])) < 4
    expected = bm.from_formula(formula, TABLE).inputs(TABLE)[[7, 3, 40]]
    torch.testing.assert_close(model.inputs(later), expected)
    torch.testing.assert_close(model.inputs(later.drop("y", "group")), expected)


def test_later_rows_come_by_group() -> None:
    model = bm.from_formula("hits / trials ~ x + (1 | group)", TABLE, family="binomial")
    new = TABLE[[20, 3, 21]].with_columns(group=pl.Series(["g02", "new", "g02"]))
    rows = model.rows(new)
    assert rows.tasks == ("g02", "new")
    assert rows.inputs == ("Intercept", "x", "trials")
    assert rows.data.count.tolist() == [2, 1]
    assert rows.data.y[0].tolist() == new["hits"].to_list()[::2]
    assert model.inputs(new.drop("hits", "trials"))[:, -1].tolist() == [1.0, 1.0, 1.0]


def test_predictions_of_a_new_table() -> None:
    fit = bm.from_formula("y ~ poly(x, 2) + kind + (1 | group)", TABLE).fit()
    squares = []
    for group, rows in ((name, TABLE.filter(group=name)) for name in fit.model.groups):
        predicted = fit.task(group).predict(fit.model.inputs(rows))
        squares.append(((predicted.mean - torch.tensor(rows["y"].to_numpy())) / predicted.stddev).square())
        new = fit.prior.predict(fit.model.inputs(rows))
        assert bool((new.stddev > predicted.stddev).all())
    # of all groups, since slopes that this model leaves out are the group's own
    assert torch.cat(squares).mean() < 2.0


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("y ~ x + (x | group)", "gaussian"),
        ("hits / trials ~ x + (1 | group)", "binomial"),
        ("count ~ x + offset(log(time)) + (1 | group)", "poisson"),
    ],
)
def test_each_row_is_predicted_by_its_group(formula: str, family: str) -> None:
    fit = bm.from_formula(formula, TABLE, family=family).fit()
    later = TABLE[[40, 3, 41, 90, 4]].with_columns(group=pl.Series(["g05", "new", "g05", "g00", "newer"]))
    found = fit.predict(later.drop("y", "hits", "trials", "count"))
    for row, posterior in enumerate([fit.task("g05"), fit.prior, fit.task("g05"), fit.task("g00"), fit.prior]):
        expected = posterior.predict(fit.model.inputs(later[row]))
        assert float(found.mean[row]) == approx(float(expected.mean[0]), rel=1e-10)
        assert float(found.stddev[row]) == approx(float(expected.variance[0]) ** 0.5, rel=1e-10)


def test_groups_of_another_type_are_not_taken_for_new_ones() -> None:
    numbered = TABLE.with_columns(group=pl.col("group").str.slice(1).cast(pl.Int32))
    fit = bm.from_formula("y ~ x + (1 | group)", numbered).fit()
    with pytest.raises(ValueError, match=r"must hold what the first table holds, such as 10; row 80 holds '10'"):
        fit.predict(TABLE.with_columns(group=pl.col("group").str.slice(1)))


def test_a_model_survives_pickling() -> None:
    model = bm.from_formula("y ~ poly(x, 2) + kind + offset(log(time)) + (1 | group)", TABLE)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.inputs(TABLE), model.inputs(TABLE))


# ---- what is refused


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ x", r"no part says what varies between groups. Add one, such as \(1 \| group\)"),
        (
            "y ~ x + (1 | group) + (1 | kind)",
            r"group and kind are crossed or nested groups, which are not covered.*C\(kind\)",
        ),
        ("y ~ (1 | group/kind)", r"\(group / kind\) names nested groups, which are not covered.*one column"),
        ("y ~ (1 | group:kind)", r"\(group : kind\) names nested groups, which are not covered.*one column"),
        ("y ~ x + (1 | group) + (0 + x | group)", "without correlation are not covered"),
        ("y ~ x + (x || group)", r"keeps weights from being correlated, which is not covered. Write one bar"),
        ("y ~ 0 + x + (1 | group)", r"'Intercept' is not. A mean of zero is not covered"),
        ("y ~ x + (1 + time | group)", r"'time' is not. A mean of zero is not covered"),
        ("y ~ group + (1 | group)", r"'group' has a fixed effect of each group.*as in \(0 \+ x \| group\)"),
        ("y ~ x + x | group", r"must stand in brackets of its own"),
        ("y ~ x * (1 | group)", r"must stand in brackets of its own"),
        ("y ~ x - (1 | group)", r"cannot be taken away"),
        ("y ~ (x | kind | group)", r"must have one bar"),
        ("y ~ (| group)", r"must have terms before the bar"),
        ("y ~ (1 | log(group))", r"the group must be a column; got log\(group\)"),
        ("y x + (1 | group)", r"one ~ must stand between the response and the terms; there are 0"),
        ("y ~ x ~ (1 | group)", r"there are 2"),
        ("~ x + (1 | group)", r"must have a response before ~"),
        ("y ~", r"there are no terms"),
        ("y ~ x +", r"a term is missing at the end"),
        ("y ~ x + + (1 | group)", r"a term is missing before the '\+' at character 9"),
        ("y ~ x + (1 | group", r"never closed"),
        ("y ~ x) + (1 | group)", r"closes no bracket"),
        ("y ~ log(x + (1 | group)", r"never closed"),
        ("y ~ x time + (1 | group)", r"Missing operator between `x` and `time`"),
        ("y ~ . + (1 | group)", r"'.' at character 5 has no meaning here. Name the columns"),
        ("y ~ 2 * x + (1 | group)", r"the number 2 has no meaning here. Put arithmetic into I"),
        ("y ~ x $ time + (1 | group)", r"'\$' at character 7"),
        ("y ~ X + (1 | group)", r"column 'X' does not exist: the columns are y, x, .*"),
        ("y ~ tiem + (1 | group)", r"Did you mean 'time'"),
        ("y ~ x + (1 | grup)", r"column 'grup' does not exist.*Did you mean 'group'"),
        ("Y ~ x + (1 | group)", r"column 'Y' does not exist"),
        (
            "kind ~ x + (1 | group)",
            r"column 'kind' must hold numbers here; it holds String. Convert it, yes and no to 1",
        ),
        (
            "y ~ I(kind) + (1 | group)",
            r"column 'kind' must hold numbers here; it holds String. As categories: C\(kind\)",
        ),
        ("y ~ log(x) + (1 | group)", r"'log\(x\)' .* must be finite in every row; it is nan in row"),
        ("log(x) ~ 1 + (1 | group)", r"response 'log\(x\)' must be finite in every row; it is nan in row"),
        ("y ~ x + I(2 * x) + (1 | group)", r"the others determine 'I\(2 \* x\)'"),
        ("y ~ C(code) + kind + (1 | group)", r"the others determine 'kind"),
        ("y ~ C(kind, contr.treatment('z')) + (1 | group)", r"not among the provided levels"),
        ("y ~ C(kind, levels=['a', 'b']) + (1 | group)", r"outside of the nominated levels"),
        ("y ~ C(kind, contr.nothing) + (1 | group)", r"contr.nothing is not known. Contrasts are contr.diff"),
        ("y ~ poly(x, 1000000000) + (1 | group)", r"asks for too many columns; 1000 are the most"),
        ("y ~ bs(x, df=1000000000) + (1 | group)", r"asks for too many columns; 1000 are the most"),
        ("y ~ bs(x, degrees=2) + (1 | group)", r"unexpected keyword argument 'degrees'"),
        ("cbind(hits, trials) ~ 1 + (1 | group)", r"needs family='binomial'"),
    ],
)
def test_formulas_that_are_refused(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bm.from_formula(formula, TABLE)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            TABLE.with_columns(x=pl.when(pl.col("y") > 2).then("x")),
            r"column 'x' must have a value in every row; it has none",
        ),
        (TABLE.with_columns(x=pl.lit(float("nan"))), r"column 'x' must have a value in every row.*96 rows"),
        (TABLE.with_columns(y=pl.lit(None, pl.Float64)), r"column 'y' must have a value in every row"),
        (TABLE.with_columns(kind=pl.lit(None, pl.String)), r"column 'kind' must have a value in every row"),
        (
            TABLE.with_columns(group=pl.when(pl.col("x") > 0).then("group")),
            r"column 'group' must have a value in every row",
        ),
        (TABLE.with_columns(x=pl.lit(float("inf"))), r"'x' .* must be finite in every row; it is inf in row 0"),
        (TABLE.with_columns(group=pl.lit("g")), r"column 'group' must name two groups or more; all rows are in 'g'"),
        (TABLE.with_columns(group=pl.int_range(pl.len())), r"each of the 96 rows is a group of its own"),
        (TABLE.with_columns(y=pl.lit(3.0)), r"target 'y' must vary; it is 3 in all 96 rows"),
        (TABLE.with_columns(kind=pl.lit("a")), r"column 'kind' must have two categories or more; all rows hold 'a'"),
        (TABLE[:0], r"the table has no rows"),
    ],
)
def test_tables_that_are_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bm.from_formula("y ~ x + kind + (1 | group)", frame)


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        (
            "y ~ (1 | group)",
            {"family": "gamma"},
            r"family must be one of 'gaussian', 'binomial', 'poisson'; got 'gamma'",
        ),
        ("y ~ (1 | group)", {"family": "poisson"}, r"counts in the response 'y' must be whole numbers from 0; row 0"),
        ("y ~ (1 | group)", {"family": "binomial"}, r"response 'y' must be 0 or 1 in every row; row 0"),
        ("hits ~ (1 | group)", {"family": "binomial"}, r"Counts of successes: successes / trials"),
        ("trials / hits ~ (1 | group)", {"family": "binomial"}, r"no more successes than trials"),
        ("time / trials ~ (1 | group)", {"family": "binomial"}, r"successes in the response .* must be whole numbers"),
        ("count ~ (1 | group)", {"family": "poisson", "weights": "time"}, r"no weights of rows.*offset='log\(time\)'"),
        ("count ~ (1 | group)", {"family": "poisson", "noise_var": "time"}, r"numbers with known variance"),
        ("y ~ (1 | group)", {"weights": "x"}, r"weights must be above zero in every row"),
        ("y ~ (1 | group)", {"noise_var": "x"}, r"noise_var must be above zero in every row"),
        ("y ~ (1 | group)", {"weights": "nothing"}, r"column 'nothing' does not exist"),
        ("y ~ (1 | group)", {"offset": "log(x)"}, r"offset 'log\(x\)' must be finite"),
        ("hits / trials ~ (1 | group)", {"family": "binomial", "weights": "trials"}, r"leave weights out"),
    ],
)
def test_families_that_do_not_fit(formula: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bm.from_formula(formula, TABLE, **options)


def test_restricted_likelihood_is_of_numbers() -> None:
    model = bm.from_formula("count ~ (1 | group)", TABLE, family="poisson")
    with pytest.raises(ValueError, match="restricted maximum likelihood is of numbers; family is 'poisson'"):
        model.fit(restricted=True)


@pytest.mark.parametrize("value", [None, 3, b"y ~ (1 | group)", ["y ~ (1 | group)"]])
def test_formulas_and_options_are_strings(value: Any) -> None:
    with pytest.raises(TypeError):
        bm.from_formula(value, TABLE)
    if value is not None:
        with pytest.raises(TypeError):
            bm.from_formula("y ~ (1 | group)", TABLE, weights=value)


def test_a_table_is_a_table() -> None:
    with pytest.raises(TypeError, match="a table must be a path or a dataframe"):
        bm.from_formula("y ~ (1 | group)", [1, 2])


@pytest.mark.parametrize("kind", ["d", "C"])
def test_new_categories_in_later_tables_are_refused(kind: str) -> None:
    model = bm.from_formula("y ~ kind + (1 | group)", TABLE)
    later = TABLE[4:7].with_columns(kind=pl.Series(["a", kind, "a"]))
    with pytest.raises(ValueError, match=rf"column 'kind' must hold categories.*a, b, c; row 1 holds '{kind}'"):
        model.inputs(later)


def test_formulaic_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "formulaic", None)
    monkeypatch.setitem(sys.modules, "pandas", None)  # comes with it
    with pytest.raises(ImportError, match=r"pip install 'bayesmeta\[formula\]'"):
        bm.from_formula("y ~ x + (1 | group)", TABLE)


# ---- no formula runs code


CODE = [
    "__import__('os').system('true')",
    "log(__import__('os').system('true'))",
    "I(__import__('os').system('true'))",
    "{__import__('os').system('true')}",
    "I(().__class__.__base__.__subclasses__())",
    "I((lambda: 1)())",
    "I([c for c in (1, 2)])",
    "I(x.to_numpy())",
    "I(x.__class__)",
    "`x`.__class__",
    "x.__class__",
    "I(x[0])",
    "eval('1')",
    "exec('1')",
    "open('file')",
    "print(x)",
    "getattr(x, 'sum')",
    "np.load('file')",
    "np.lib.format.open_memmap('file')",
    "log(x, out=x)",
    "log(x, x)",
    "poly(x, _state=x)",
    "poly(x, degree=open('file'))",
    "bs(x, knots=[open('file')])",
    "bs(*x)",
    "bs(**x)",
    "hashed(x, levels=3)",
    "lag(x)",
    "Q('x')",
    "C(x, contr.__class__)",
    "C(x, contrasts=open('file'))",
    "I(f'{open(1)}')",
    "I((y := 3))",
    "I(x if x else x)",
    "I(9**9**9**9 * x)",
    "I('a' * 10**9)",
    "I(x @ x)",
    "offset(open('file'))",
    "offset(x, x)",
    "log(offset(x))",
    "x[open('file')]",
    "x.mean(open('file'))",
    "I(" + "(" * 500 + "x" + ")" * 500 + ")",
]


@pytest.mark.parametrize("code", CODE, ids=range(len(CODE)))
def test_no_formula_runs_code(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as a term, nor in the random part, nor as the response, nor as an option."""
    parse("y ~ x + (1 | group)")  # what is imported late is there
    bm.from_formula("y ~ poly(x, 2) + kind + (1 | group)", TABLE)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a formula ran code")

    opened = builtins.open
    monkeypatch.setattr("os.system", forbidden)
    monkeypatch.setattr(builtins, "open", forbidden)
    monkeypatch.setattr(np, "load", forbidden)
    errors = []
    for formula in (f"y ~ {code} + (1 | group)", f"y ~ x + ({code} | group)", f"{code} ~ x + (1 | group)"):
        try:
            bm.from_formula(formula, TABLE)
        except ValueError as error:
            errors.append(str(error))
    for option in ("offset", "weights", "noise_var"):
        try:
            bm.from_formula("y ~ x + (1 | group)", TABLE, **{option: code})
        except ValueError as error:
            errors.append(str(error))
    monkeypatch.setattr(builtins, "open", opened)
    assert len(errors) == 6
    assert all(len(error) < 1500 for error in errors)
