"""Mixed models with published answers: linear ones by both likelihoods, binomial and Poisson ones by quadrature."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import bayesmeta as bm

approx = pytest.approx
DATA = Path(__file__).parents[2] / "data"


def fitted(name: str, formula: str, *, restricted: bool = False, **options: Any) -> bm.FittedMixedModel:
    """Maximum likelihood, without a hyperprior."""
    model = bm.from_formula(formula, DATA / f"{name}.csv", **options)
    return model.fit(restricted=restricted, hyperprior_weight=0.0)


def test_sleepstudy_by_restricted_likelihood() -> None:
    """Bates et al., Fitting linear mixed-effects models using lme4, J. Stat. Software 67 (2015), sections 1 and 5."""
    fit = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)", restricted=True)
    assert -2.0 * fit.log_likelihood == approx(1743.628, abs=5e-4)
    assert fit.fixed_effects == approx({"Intercept": 251.405, "Days": 10.467}, abs=5e-4)
    assert fit.standard_errors == approx({"Intercept": 6.825, "Days": 1.546}, abs=6e-4)
    assert fit.standard_deviations == approx({"Intercept": 24.741, "Days": 5.922}, abs=6e-4)
    assert {name: sd**2 for name, sd in fit.standard_deviations.items()} == approx(
        {"Intercept": 612.10, "Days": 35.07}, abs=0.011
    )
    assert float(fit.correlations[0, 1]) == approx(0.066, abs=5e-4)
    assert fit.residual == approx(25.592, abs=5e-4)
    assert fit.residual**2 == approx(654.94, abs=6e-3)


def test_sleepstudy_by_likelihood() -> None:
    """The manual of MixedModels.jl, and `?lme4::refitML`: logLik -875.97, AIC 1763.9."""
    fit = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    assert fit.log_likelihood == approx(-875.97, abs=5e-3)
    assert fit.fixed_effects == approx({"Intercept": 251.405, "Days": 10.467}, abs=5e-4)
    assert fit.standard_errors == approx({"Intercept": 6.632, "Days": 1.502}, abs=6e-4)
    assert fit.standard_deviations == approx({"Intercept": 23.78, "Days": 5.717}, abs=6e-3)
    assert float(fit.correlations[0, 1]) == approx(0.08, abs=5e-3)
    assert fit.residual == approx(25.592, abs=6e-4)


def test_sleepstudy_with_a_slope_that_all_share() -> None:
    """`lmer(Reaction ~ Days + (1 | Subject), sleepstudy)`: the vignette of lme4 and many courses."""
    fit = fitted("sleepstudy", "Reaction ~ Days + (1 | Subject)", restricted=True)
    assert -2.0 * fit.log_likelihood == approx(1786.465, abs=1e-3)
    assert fit.fixed_effects == approx({"Intercept": 251.4051, "Days": 10.4673}, abs=6e-5)
    assert fit.standard_errors == approx({"Intercept": 9.7467, "Days": 0.8042}, abs=6e-5)
    assert fit.standard_deviations == approx({"Intercept": 37.12}, abs=6e-3)
    assert fit.residual == approx(30.99, abs=6e-3)


def test_lines_of_subjects() -> None:
    """`coef` of the first fit above, as lme4's help pages and many courses print it: subjects 308 and 309."""
    fit = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)", restricted=True)
    assert fit.task(308).loc.tolist() == approx([253.6637, 19.6663], abs=1e-3)
    assert fit.task(309).loc.tolist() == approx([211.0064, 1.8476], abs=1e-3)


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("varying", ["1", "Days"])
def test_effects_are_the_variance_components_of_the_search(varying: str, restricted: bool) -> None:
    """Read off the fitted prior, they are what the search had before it built that prior."""
    model = bm.from_formula(f"Reaction ~ Days + ({varying} | Subject)", DATA / "sleepstudy.csv")
    found = model.fit(restricted=restricted, hyperprior_weight=0.0).effects
    expected = model.prior.variance_components(model.tasks, restricted=restricted)
    assert found.loc.tolist() == approx(expected.loc.tolist(), rel=1e-9)
    assert found.loc_cov.flatten().tolist() == approx(expected.loc_cov.flatten().tolist(), rel=1e-8)
    assert found.cov.flatten().tolist() == approx(expected.between_cov.flatten().tolist(), rel=1e-8)
    assert found.log_likelihood == approx(float(expected.log_evidence), rel=1e-10)


@pytest.mark.parametrize(("restricted", "batches", "error"), [(True, 42.0006, 19.3834), (False, 37.260, 17.6946)])
def test_dyestuff(restricted: bool, batches: float, error: float) -> None:
    """Bates, lme4: Mixed-effects modeling with R (2010), section 1.3: REML 42.00 and 49.51, ML 37.26 and 49.51."""
    fit = fitted("dyestuff", "Yield ~ 1 + (1 | Batch)", restricted=restricted)
    assert fit.fixed_effects == approx({"Intercept": 1527.5})
    assert fit.standard_errors == approx({"Intercept": error}, abs=1e-3)
    assert fit.standard_deviations == approx({"Intercept": batches}, abs=6e-4)
    assert fit.residual == approx(49.5101, abs=1e-4)
    assert -2.0 * fit.log_likelihood == approx(319.6543 if restricted else 327.3271, abs=1e-4)


@pytest.mark.parametrize(("restricted", "residual", "error"), [(True, 3.7157, 0.6784), (False, 3.6532, 0.6670)])
def test_batches_that_do_not_differ(restricted: bool, residual: float, error: float) -> None:
    """Bates (2010), section 1.3.2: the variance between the batches of Dyestuff2 is zero by both likelihoods."""
    with pytest.warns(bm.LimitWarning, match="share this weight"):
        fit = fitted("dyestuff2", "Yield ~ 1 + (1 | Batch)", restricted=restricted)
    assert fit.standard_deviations["Intercept"] < 1e-3 * residual
    assert fit.fixed_effects == approx({"Intercept": 5.6656}, abs=6e-5)
    assert fit.standard_errors == approx({"Intercept": error}, abs=6e-5)
    assert fit.residual == approx(residual, abs=6e-5)
    assert -2.0 * fit.log_likelihood == approx(161.8283 if restricted else 162.8730, abs=1e-4)


@pytest.mark.parametrize(("restricted", "tau2", "mean"), [(True, 0.3132, -0.7145), (False, 0.2800, -0.7112)])
def test_a_meta_analysis_with_known_variances(restricted: bool, tau2: float, mean: float) -> None:
    """Viechtbauer, Conducting meta-analyses in R with the metafor package, J. Stat. Software 36 (2010), section 3."""
    counts = pl.read_csv(DATA / "bcg.csv")
    vaccinated = pl.col("vaccinated_cases") + pl.col("vaccinated_others")
    control = pl.col("control_cases") + pl.col("control_others")
    ratio = (pl.col("vaccinated_cases") / vaccinated) / (pl.col("control_cases") / control)
    variance = 1 / pl.col("vaccinated_cases") - 1 / vaccinated + 1 / pl.col("control_cases") - 1 / control
    table = counts.with_columns(log_ratio=ratio.log(), variance=variance)
    model = bm.from_formula("log_ratio ~ 1 + (1 | trial)", table, noise_var="variance")
    fit = model.fit(restricted=restricted, hyperprior_weight=0.0)
    assert fit.standard_deviations["Intercept"] ** 2 == approx(tau2, abs=1e-4)
    assert fit.fixed_effects == approx({"Intercept": mean}, abs=6e-5)
    assert fit.residual is None
    if restricted:
        assert fit.standard_errors == approx({"Intercept": 0.1798}, abs=6e-5)


def test_cbpp() -> None:
    """`example(glmer)` of lme4 publishes -1.398, -.992, -1.128, -1.580, .642 and -92.03, by Laplace's method.

    With nAGQ=9 it finds -1.3992, -.9914, -1.1278, -1.5795, .6475: by quadrature, as we do. The digits from the fifth on
    are those of adaptive quadrature with 25 points, written independently with NumPy and SciPy.
    """
    fit = fitted("cbpp", "incidence / size ~ C(period) + (1 | herd)", family="binomial")
    assert list(fit.fixed_effects.values()) == approx([-1.3992305, -0.9914037, -1.1278194, -1.5794706], abs=2e-5)
    assert list(fit.standard_errors.values()) == approx([0.23351, 0.30677, 0.32677, 0.42759], abs=2e-5)
    assert fit.standard_deviations["Intercept"] == approx(0.6475185, abs=2e-5)
    assert fit.log_likelihood == approx(-91.983369, abs=1e-5)
    assert list(fit.fixed_effects.values()) == approx([-1.398, -0.992, -1.128, -1.580], abs=1.5e-3)
    assert fit.standard_deviations["Intercept"] == approx(0.642, abs=6e-3)
    assert fit.residual is None


def test_epilepsy() -> None:
    """Stata's manual, example 1 of mepoisson, after Breslow and Clayton (1993), by quadrature of seven points."""
    table = pl.read_csv(DATA / "epil.csv").with_columns(
        treat=(pl.col("trt") == "progabide").cast(pl.Int8), lbase=(pl.col("base") / 4).log(), lage=pl.col("age").log()
    )
    model = bm.from_formula("y ~ treat * lbase + lage + V4 + (1 | subject)", table, family="poisson")
    fit = model.fit(hyperprior_weight=0.0)
    published = {"treat": -0.93304, "lbase": 0.88443, "treat:lbase": 0.33826, "lage": 0.48424, "V4": -0.16109}
    errors = {"treat": 0.4008, "lbase": 0.1312, "treat:lbase": 0.2033, "lage": 0.3473, "V4": 0.0546}
    for name, value in published.items():
        assert fit.fixed_effects[name] == approx(value, abs=1e-5)
        assert fit.standard_errors[name] == approx(errors[name], abs=6e-5)
    assert fit.standard_deviations["Intercept"] ** 2 == approx(0.25283, abs=1e-5)
    assert fit.log_likelihood == approx(-665.291, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "formula", "groups"),
    [
        ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "plate and sample"),
        ("pastes", "strength ~ 1 + (1 | batch / cask)", "batch / cask"),
        ("pastes", "strength ~ 1 + (1 | batch) + (1 | batch:cask)", "batch : cask"),
    ],
)
def test_crossed_and_nested_groups_are_refused(name: str, formula: str, groups: str) -> None:
    with pytest.raises(ValueError, match=rf"{groups}.* not covered"):
        fitted(name, formula)


def test_what_the_error_of_crossed_groups_advises() -> None:
    """Samples as fixed effects: the design is balanced, so that residual and plates are those of the crossed model.

    Bates (2010), section 2.1: standard deviations .8467 of plates and .5499 of the residual.
    """
    fit = fitted("penicillin", "diameter ~ sample + (1 | plate)", restricted=True)
    assert fit.standard_deviations["Intercept"] == approx(0.8467, abs=1e-4)
    assert fit.residual == approx(0.5499, abs=1e-4)
    assert math.isfinite(fit.log_likelihood)
