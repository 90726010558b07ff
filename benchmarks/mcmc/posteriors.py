"""Posteriors of posteriordb, whose reference draws say what is right: means and standard deviations beside them."""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.mcmc import Densities, StudentMixture, effective_size, sample
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["compared"]

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Posterior:
    """One of them.

    Args:
        data: from its file to tensors.
        log_density: of positions `(..., tasks, d)` and those tensors, as its Stan program has it.
        params: names of the reference draws, and the parameters of positions alike.
        scale: of the reference that it is sampled from, a normal about zero.
    """

    data: Callable[[Numbers], dict[str, Tensor]]
    log_density: Callable[..., Tensor]
    params: Callable[[Tensor], dict[str, Tensor]]
    scales: Callable[[Numbers], list[float]]


def _regression(columns: Callable[[Numbers], list[Any]], y: Callable[[Numbers], Any], prior: str = "flat") -> Posterior:
    """Normal rows about a linear predictor; the last coordinate is log sigma, with its Jacobian."""

    def data(raw: Numbers) -> dict[str, Tensor]:
        x = np.stack([np.broadcast_to(np.asarray(c, float), np.shape(y(raw))) for c in columns(raw)], -1)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(np.asarray(y(raw), float))}

    def log_density(position: Tensor, x: Tensor, y: Tensor) -> Tensor:
        beta, log_sigma = position[..., :-1], position[..., -1]
        resid = y - (x @ beta[..., None])[..., 0]
        fit = -0.5 * resid.square().sum(-1) * (-2.0 * log_sigma).exp() - y.shape[-1] * log_sigma + log_sigma
        if prior == "cauchy":  # sigma half Cauchy(0, 2.5)
            return fit - torch.log1p((log_sigma.exp() / 2.5).square())
        if prior == "normal":  # weights and sigma
            return fit - 0.5 * beta.square().sum(-1) / 100.0 - 0.5 * (2.0 * log_sigma).exp() / 100.0
        return fit

    def params(position: Tensor) -> dict[str, Tensor]:
        names = {f"beta[{i + 1}]": position[..., i] for i in range(position.shape[-1] - 1)}
        return {**names, "sigma": position[..., -1].exp()}

    def scales(raw: Numbers) -> list[float]:
        found = data(raw)
        spread = float(found["y"].std()) + float(found["y"].mean().abs())
        return [10.0 * spread / (float(c.square().mean().sqrt()) + 1e-9) for c in found["x"].mT] + [5.0]

    return Posterior(data, log_density, params, scales)


def _nes(raw: Numbers) -> list[Any]:
    age = np.asarray(raw["age_discrete"])
    return [
        1.0,
        raw["real_ideo"],
        raw["race_adj"],
        age == 2,
        age == 3,
        age == 4,
        raw["educ1"],
        raw["gender"],
        raw["income"],
    ]


def _mesquite(raw: Numbers) -> list[Any]:
    logs = [np.log(raw[name]) for name in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    return [1.0, *logs, raw["group"]]


def _male(raw: Numbers, name: str) -> Any:
    return np.log(raw[name]) if name == "earn" else raw[name]


def _eight_schools() -> Posterior:
    """Standardised effects, mean and log scale of the schools."""

    def log_density(position: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
        trans, mu, log_tau = position[..., :8], position[..., 8], position[..., 9]
        theta = mu[..., None] + log_tau.exp()[..., None] * trans
        fit = -0.5 * ((y - theta) / sigma).square().sum(-1) - 0.5 * trans.square().sum(-1)
        tau = log_tau.exp()
        return fit - 0.5 * (mu / 5.0).square() - torch.log1p((tau / 5.0).square()) + log_tau

    def params(position: Tensor) -> dict[str, Tensor]:
        mu, tau = position[..., 8], position[..., 9].exp()
        theta = {f"theta[{i + 1}]": mu + tau * position[..., i] for i in range(8)}
        return {**theta, "mu": mu, "tau": tau}

    def data(raw: Numbers) -> dict[str, Tensor]:
        return {name: torch.tensor(raw[name]).double() for name in ("y", "sigma")}

    return Posterior(data, log_density, params, lambda raw: [1.0] * 8 + [5.0, 2.0])


POSTERIORS: dict[str, Posterior] = {
    **{f"nes{year}-nes": _regression(_nes, lambda raw: raw["partyid7"]) for year in (1972, 1976, 1980, 1984)},
    "kidiq-kidscore_momiq": _regression(lambda raw: [1.0, raw["mom_iq"]], lambda raw: raw["kid_score"], "cauchy"),
    "kidiq-kidscore_interaction": _regression(
        lambda raw: [1.0, raw["mom_hs"], raw["mom_iq"], np.multiply(raw["mom_hs"], raw["mom_iq"])],
        lambda raw: raw["kid_score"],
        "cauchy",
    ),
    "mesquite-logmesquite": _regression(_mesquite, lambda raw: np.log(raw["weight"])),
    "earnings-earn_height": _regression(lambda raw: [1.0, raw["height"]], lambda raw: raw["earn"]),
    "earnings-logearn_height_male": _regression(
        lambda raw: [1.0, raw["height"], raw["male"]], lambda raw: np.log(raw["earn"])
    ),
    "sblrc-blr": _regression(lambda raw: list(np.asarray(raw["X"]).T), lambda raw: raw["y"], "normal"),
    "sblri-blr": _regression(lambda raw: list(np.asarray(raw["X"]).T), lambda raw: raw["y"], "normal"),
    "eight_schools-eight_schools_noncentered": _eight_schools(),
}


def compared(folder: Path | None) -> tuple[Rows, list[Figure]]:
    """A row for each posterior: how many Monte Carlo errors means and deviations are off at most."""
    assert folder is not None
    root = folder / "posteriordb"
    rows = [_row(root, name) for name in POSTERIORS]
    return rows, [Figure(f"z_max/{row['problem']}", row["z_max"], "errors of Monte Carlo") for row in rows]


def _row(root: Path, name: str) -> Numbers:
    posterior = POSTERIORS[name]
    raw = json.loads((root / "data" / f"{name.split('-')[0]}.json").read_text())
    data = {key: value[None] for key, value in posterior.data(raw).items()}
    scales = torch.tensor(posterior.scales(raw)).double()
    d = len(scales)
    reference = StudentMixture(
        torch.zeros(1, 1).double(), torch.zeros(1, 1, d).double(), torch.diag(scales)[None, None], 3.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = sample(
            Densities(posterior.log_density, reference, data),
            num_draws=2500,
            progress=False,
            generator=torch.Generator().manual_seed(1),
        )
    found = posterior.params(draws.position[:, :, 0])
    expected = reference_draws(root / "draws" / f"{name}.npz")
    worst = max(_errors(found[key], expected[key]) for key in found)
    return {
        "problem": name,
        "method": draws.rungs[int(draws.rung[0])],
        "passed": bool(draws.passed[0]),
        "ess": float(draws.ess_bulk.min()),
        "z_max": worst,
        "figures": 2 * len(found),
    }


def reference_draws(path: Path) -> dict[str, Tensor]:
    """By name, `(chains, draws)`."""
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["names"]] if "names" in file.files else [*file.files]
        values = file["draws"] if "draws" in file.files else None
        if values is None:
            return {name: torch.from_numpy(file[name]).double() for name in names}
        return {name: torch.from_numpy(values[..., i]).double() for i, name in enumerate(names)}


def _errors(found: Tensor, expected: Tensor) -> float:
    """The larger of the errors of mean and of deviation, in units of what both samples leave open."""
    worst = 0.0
    centre = expected.mean()
    for of in (lambda v: v, lambda v: (v - centre).square()):
        one, other = of(found), of(expected)
        spread = other.std()
        both = math.sqrt(1.0 / _size(one) + 1.0 / _size(other))
        worst = max(worst, float((one.mean() - other.mean()).abs() / (spread * both)))
    return worst


def _size(draws: Tensor) -> float:
    return float(effective_size(draws[..., None], kind="mean")[0])
