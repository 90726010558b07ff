"""CPU-seconds of one suggestion, a learned prior's beside those of others, in a space of six numbers.

The median of a few suggestions in a row, each told its value before the next, after n trials at Sobol points. `gp` is
BoTorch as its users run it: its own fit of a `SingleTaskGP`, and `optimize_acqf` on log expected improvement.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache

import optuna
import torch
from optuna.distributions import FloatDistribution
from rich.table import Table
from torch import Generator, Tensor

from bayesmeta import Data, TransformerNeuralProcess
from bayesmeta.random import seeded
from benchmarks.report import Figure
from bo import MetaSampler, SearchSpace, TuningPrior, fit_of
from bo.single_study.baseline import fit_by_botorch, log_expected_improvement

__all__ = ["MEASURED", "cost_table", "suggestion_cost"]

SPACE = SearchSpace({f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)})
NUM_PAST, NUM_PAST_ROWS = 20, 100
NUM_RESTARTS, NUM_RAW_SAMPLES = 10, 512

Suggest = Callable[[], None]  # one suggestion; what it suggests is evaluated and told


def objective(x: Tensor, centre: Tensor) -> Tensor:
    """A bowl with waves, `(*, 6)` to `(*)`, more being better."""
    return -(x - centre).square().sum(-1) + 0.1 * (9.0 * x).sin().sum(-1)


def by_sampler(make: Callable[[], optuna.samplers.BaseSampler], x: Tensor, y: Tensor, centre: Tensor) -> Suggest:
    study = optuna.create_study(direction="maximize", sampler=make())
    for params, value in zip(SPACE.from_unit(x), y.tolist(), strict=True):
        trial = optuna.trial.create_trial(params=params, distributions=dict(SPACE.distributions), value=value)
        study.add_trial(trial)

    def suggest() -> None:
        trial = study.ask(dict(SPACE.distributions))
        study.tell(trial, float(objective(SPACE.to_unit([trial.params])[0], centre)))

    return suggest


def by_botorch(x: Tensor, y: Tensor, centre: Tensor) -> Suggest:
    from botorch.optim.optimize import optimize_acqf

    generator, rows = Generator().manual_seed(0), {"x": x, "y": y}
    bounds = torch.stack([torch.zeros(x.shape[-1]), torch.ones(x.shape[-1])]).to(x)

    def suggest() -> None:
        acquire = log_expected_improvement(rows["x"], rows["y"], fit=fit_by_botorch)
        with seeded(generator):  # its restarts are drawn from the global stream
            best, _ = optimize_acqf(acquire, bounds, q=1, num_restarts=NUM_RESTARTS, raw_samples=NUM_RAW_SAMPLES)
        rows["x"], rows["y"] = torch.cat([rows["x"], best]), torch.cat([rows["y"], objective(best, centre)])

    return suggest


def learned_prior(fit: Callable[..., TuningPrior] = TuningPrior.fit) -> TuningPrior:
    generator = Generator().manual_seed(0)
    centres = 0.3 + 0.4 * torch.rand(NUM_PAST, 1, 6, generator=generator, dtype=torch.float64)
    x = torch.stack([SPACE.sobol(NUM_PAST_ROWS, generator=generator) for _ in range(NUM_PAST)])
    y = objective(x, centres)
    return fit(SPACE, Data(x, y, torch.ones_like(y, dtype=torch.bool)), "maximize")


@cache
def learned_network() -> TuningPrior:
    return learned_prior(fit_of(TransformerNeuralProcess))


# what prepares a suggestion after the rows x, y
MEASURED: dict[str, Callable[[Tensor, Tensor, Tensor], Suggest]] = {
    "default": lambda *rows: by_sampler(lambda: MetaSampler(learned_prior(), seed=0), *rows),
    "transformer": lambda *rows: by_sampler(lambda: MetaSampler(learned_network(), seed=0), *rows),
    "gp": by_botorch,
    "gpsampler": lambda *rows: by_sampler(lambda: optuna.samplers.GPSampler(seed=0), *rows),
    "tpe": lambda *rows: by_sampler(lambda: optuna.samplers.TPESampler(seed=0), *rows),
}


def suggestion_cost(methods: Sequence[str], sizes: Sequence[int] = (50, 200), num: int = 5) -> list[Figure]:
    """Figures of those of `methods` that are among `MEASURED`, each the median of `num` suggestions."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    centre = torch.full((6,), 0.4, dtype=torch.float64)
    figures = []
    for n in sizes:
        x = SPACE.sobol(n, generator=Generator().manual_seed(0))
        for method in [name for name in MEASURED if name in methods]:
            suggest = MEASURED[method](x, objective(x, centre), centre)
            suggest()  # the first imports what it needs
            seconds = []
            for _ in range(num):
                start = time.process_time()
                suggest()
                seconds.append(time.process_time() - start)
            cost = float(torch.tensor(seconds, dtype=torch.float64).median())
            figures.append(Figure(f"suggest_cpu_s/{method}/{n}", cost, f"CPU-s of a suggestion after {n} trials"))
    return figures


def cost_table(figures: Sequence[Figure]) -> Table:
    """Methods by sizes."""
    values = {tuple(figure.name.split("/")[1:]): figure.value for figure in figures}
    methods, sizes = (list(dict.fromkeys(key[i] for key in values)) for i in (0, 1))
    table = Table("method", *[f"after {n} trials" for n in sizes], title="CPU-seconds of a suggestion, 6 parameters")
    for method in methods:
        table.add_row(method, *[f"{values[method, n]:.3f}" for n in sizes])
    return table
