"""Whether a GPU gives the CPU's answers, and how much sooner: `python -m benchmarks.device_check --out FILE`.

On one device beside the CPU it asks
- the laws of every family, of priors and rows on the device,
- the same answers of every family for the same rows: moments, evidence and its slope, rows that are added in place,
- one step of learning of every network: its value and its slope, from the same weights, tasks and choices,
- a suggestion: how great an acquisition function can be, and that policies, which decide on the CPU, say so,
- times of batches that are large enough for a GPU, divided into those of the CPU.

It needs torch, gpytorch, botorch, hypothesis and pytest. It prints a line for each question that failed, and then ends
with status 1.
"""

import argparse
import dataclasses
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

import bayesmeta
from bayesmeta import Data, testing
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.named_fields import named_fields
from bayesmeta.neural_processes import learning
from bayesmeta.neural_processes.episodes import PastEpisodes
from bayesmeta.numerics.gradients import gradients
from bayesmeta.online.start import online
from bayesmeta.protocol import Evidence, Marginal
from bayesmeta.random import seeded
from benchmarks.report import Figure, environment, write_json
from tests.families import FAMILIES

__all__ = ["Checks", "main"]

CPU = torch.device("cpu")
LENGTHS = (5, 3, 0, 7)  # rows of the tasks that answers are about
RTOL = 1e-6  # to which float64 agrees: iterative answers stop a few digits apart
NETWORKS = tuple(
    f"{kind}_neural_process" for kind in ("conditional", "latent", "attentive", "transformer", "causal_transformer")
)


@dataclasses.dataclass(frozen=True)
class Question:
    """One that can fail.

    Args:
        name: such as `laws/gamma_poisson/padding_is_invisible`.
        ask: raises where the device answers something else, and returns what there is to report, or None.
    """

    name: str
    ask: Callable[[], float | None]


class Checks:
    """The questions of one device.

    Args:
        device: beside which the CPU is asked.
        most_tasks: of the largest batches that are timed.
    """

    def __init__(self, device: torch.device, most_tasks: int = 100_000) -> None:
        self.device, self.most_tasks = device, most_tasks

    def __iter__(self) -> Iterator[Question]:
        for name, family in FAMILIES.items():
            yield Question(f"answers/{name}", lambda family=family: self._answers(family))
            yield Question(f"in_place/{name}", lambda family=family: self._in_place(family))
            moved = dataclasses.replace(family, prior=family.prior.to(self.device))
            for law in testing.laws_of(moved):
                yield Question(f"laws/{name}/{law.__name__}", lambda law=law, moved=moved: law(moved))
        for name in NETWORKS:
            yield Question(f"learning/{name}", lambda name=name: self._step(FAMILIES[name]))
        for name in ("deep_kernel", "learned_features", *NETWORKS):
            yield Question(f"fit/{name}", lambda name=name: self._fit(FAMILIES[name]))
        yield Question("suggestion/acquisition", self._acquisition)
        yield Question("suggestion/bandit", self._bandit)
        for name, work in TIMED.items():
            yield Question(f"speed_up/{name}", lambda work=work: self._speed_up(work))

    def _both(self, work: Callable[[torch.device], Tensor], rtol: float = RTOL) -> float:
        """The same on both devices; returns the largest difference, in units of the largest answer."""
        here, there = work(CPU), work(self.device)
        assert there.device.type == self.device.type, f"an answer came from {there.device}"
        torch.testing.assert_close(there.to(CPU), here, rtol=rtol, atol=rtol)
        return float((there.to(CPU) - here).abs().max() / here.abs().max().clamp(min=1.0))

    def _answers(self, family: testing.Family) -> float:
        tasks = family.tasks(list(LENGTHS))
        x = torch.stack([family.inputs(3, 10 + i) for i in range(len(LENGTHS))])

        def answers(device: torch.device) -> Tensor:
            prior, rows = family.prior.to(device), tasks.to(device)
            posterior = prior.condition(rows)
            found = [*_moments(posterior.predict(x.to(device)))]
            if isinstance(posterior, Marginal):
                found += _moments(posterior.marginal(x.to(device)))
            if isinstance(prior, Evidence):
                found += [prior.log_evidence(rows), *_slopes(prior, rows)]
            return torch.cat([each.flatten() for each in found])

        return self._both(answers)

    def _in_place(self, family: testing.Family) -> float | None:
        """Of families that bandits take: not of vectors, nor of rows that bring their variance."""
        rows, x = family.rows(6), family.inputs(3, 10)

        def answers(device: torch.device) -> Tensor:
            belief = online(family.prior.to(device), (2,))
            for i in range(6):
                belief.add(
                    (torch.tensor([i % 2], device=device),), rows.x[i : i + 1].to(device), rows.y[[i]].to(device)
                )
            posterior: Any = belief.posterior()
            return torch.cat([each.flatten() for each in _moments(posterior.predict(x.to(device).expand(2, -1, -1)))])

        return None if family.prior.event_shape or family is FAMILIES["normal_known_variances"] else self._both(answers)

    def _step(self, family: testing.Family) -> float:
        """Value and slope of one step, from the same weights, tasks and choices."""
        tasks = family.tasks([9, 12, 7, 10])

        def slope(device: torch.device) -> Tensor:
            prior = family.prior.to(device)
            weights = {name: value.clone().requires_grad_() for name, value in prior.network.weights.items()}
            generator = torch.Generator().manual_seed(3)
            episode = PastEpisodes(tasks.to(device), 4, 5, 8).draw(6, generator)
            as_learned = {name: value.float() for name, value in weights.items()}
            with torch.enable_grad():
                value = learning.mean_log_prob(prior, as_learned, episode, generator)
                slopes = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            return torch.cat([value.detach()[None], *(each.flatten() for each in slopes if each is not None)])

        return self._both(slope, rtol=2e-4)  # networks learn in float32

    def _fit(self, family: testing.Family) -> float:
        """What is learned in a few steps is on the device, and is worth what the CPU's is worth."""
        tasks = family.tasks([9, 12, 7, 10, 8])
        options = {"schedule": learning.Schedule(4, num_tasks=4)} if hasattr(family.prior, "head") else {}

        def worth(device: torch.device) -> Tensor:
            learned = family.prior.to(device).fit(tasks.to(device), progress=False, **options)
            assert _devices(learned) == {device.type}, f"what was learned is on {_devices(learned)}"
            return learned.log_evidence(tasks.to(device)).mean()

        return self._both(worth, rtol=0.2)  # steps in float32 part ways, and end at another look

    def _acquisition(self) -> float:
        from botorch.acquisition import LogExpectedImprovement
        from botorch.optim import optimize_acqf

        import bo

        family = FAMILIES["gaussian_process"]
        rows, best = family.rows(6), float(family.rows(6).y.max())

        def value(device: torch.device) -> Tensor:
            model = bo.Surrogate(family.prior.to(device).condition(rows.to(device)))
            box = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64, device=device)
            with seeded(family.seed(1)):
                acquisition = LogExpectedImprovement(model, best_f=best)
                return optimize_acqf(acquisition, bounds=box, q=1, num_restarts=4, raw_samples=64)[1]

        return self._both(value, rtol=0.02)  # climbed from other points

    def _bandit(self) -> None:
        """A policy decides on the CPU, and says so of a prior that is elsewhere."""
        import bandits

        prior = FAMILIES["beta_bernoulli"].prior
        if self.device.type != "cpu":
            with pytest.raises(ValueError, match=r"prior.to\('cpu'\)"):
                bandits.ThompsonSampling(prior.to(self.device), ["left", "right"])
        policy = bandits.ThompsonSampling(prior.to(self.device).to(CPU), ["left", "right"], seed=0)
        policy.update(policy.choose(), 1.0)

    def _speed_up(self, work: Callable[[torch.device, int], Callable[[], Any]]) -> float:
        """Time of the CPU over that of the device."""
        here, there = (_seconds(work(device, self.most_tasks), device) for device in (CPU, self.device))
        return here / there


def _devices(value: Any) -> set[str]:
    """Of all tensors in a prior."""
    if isinstance(value, Tensor):
        return {value.device.type}
    inside = value.values() if isinstance(value, dict) else ()
    inside = named_fields(value).values() if dataclasses.is_dataclass(value) else inside
    return set().union(*(_devices(each) for each in inside))


def _moments(prediction: Any) -> tuple[Tensor, Tensor]:
    return prediction.mean, prediction.variance


def _slopes(prior: Any, rows: Data) -> list[Tensor]:
    """Of the evidence, by the hyperparameters of a family that learns these."""
    if not isinstance(prior, Hierarchical):
        return []
    unknown = prior.hyperparameters(rows)
    with gradients():
        vector = (unknown.start + 0.1).detach().requires_grad_()
        return [torch.autograd.grad(unknown.log_evidence(vector).sum(), vector)[0]]


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Shortest of three, after one that nobody times."""
    found = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _conjugate(device: torch.device, num_tasks: int) -> Callable[[], Any]:
    rows = torch.randn(num_tasks, 20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tasks = Data.of(torch.zeros(num_tasks, 20, 0, dtype=torch.float64), rows, event_dim=1).to(device)
    eye = torch.eye(5, dtype=torch.float64, device=device)
    prior = bayesmeta.NormalInverseWishart(eye[0], eye[0, 0], 9.0 * eye[0, 0], eye)
    return lambda: (prior.condition(tasks), prior.log_evidence(tasks))


def _regression(device: torch.device, num_tasks: int) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_tasks, 20, 5, dtype=torch.float64, generator=generator)
    tasks = Data.of(x, torch.randn(num_tasks, 20, dtype=torch.float64, generator=generator)).to(device)
    eye = torch.eye(5, dtype=torch.float64, device=device)
    prior = bayesmeta.LinearGaussian(eye[0], eye, eye[0, 0])
    return lambda: (prior.condition(tasks), prior.log_evidence(tasks))


def _in_turn(device: torch.device, num_tasks: int) -> Callable[[], Any]:
    eye = torch.eye(5, dtype=torch.float64, device=device)
    belief = online(bayesmeta.LinearGaussian(eye[0], eye, eye[0, 0]), (num_tasks,))
    every = torch.arange(num_tasks, device=device)
    x = torch.randn(num_tasks, 5, dtype=torch.float64, device=device)
    return lambda: belief.add((every,), x, x[:, 0])


def _network(device: torch.device, num_tasks: int) -> Callable[[], Any]:
    num = max(num_tasks // 100, 1)
    tasks = Data.of(*(torch.randn(num, 20, *rest, generator=torch.Generator().manual_seed(0)) for rest in ((1,), ())))
    prior, moved = bayesmeta.TransformerNeuralProcess.initial(tasks).to(device), tasks.to(device)
    return lambda: prior.condition(moved).predict(moved.x).mean


def _learning(device: torch.device, num_tasks: int) -> Callable[[], Any]:
    num = max(num_tasks // 1000, 2)
    tasks = Data.of(*(torch.randn(num, 40, *rest, generator=torch.Generator().manual_seed(0)) for rest in ((1,), ())))
    prior, moved = bayesmeta.TransformerNeuralProcess.initial(tasks).to(device), tasks.to(device)
    schedule = learning.Schedule(4, num_tasks=64)
    return lambda: prior.fit(moved, schedule=schedule, progress=False)


TIMED = {
    "normal_inverse_wishart": _conjugate,
    "linear_gaussian": _regression,
    "rows_in_place": _in_turn,
    "transformer_predicts": _network,
    "transformer_learns": _learning,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a GPU gives the CPU's answers, and how much sooner.")
    parser.add_argument("--device", default="cuda", help="as torch names it")
    parser.add_argument("--most-tasks", type=int, default=100_000, help="of the largest batches that are timed")
    parser.add_argument("--only", default="", help="questions whose names begin so")
    parser.add_argument("--out", type=Path, help="a JSON file of all answers")
    options = parser.parse_args()
    settings.register_profile("device", deadline=None)  # the first call of each kernel loads it
    settings.load_profile("device")
    warnings.simplefilter("ignore")  # of priors that learned from next to nothing
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device names another device")
    failed, found = {}, {}
    start = time.perf_counter()
    for question in Checks(device, options.most_tasks):
        if not question.name.startswith(options.only):
            continue
        try:
            found[question.name] = question.ask()
        except Exception as error:  # one answer that is wrong must not hide the others
            failed[question.name] = "".join(traceback.format_exception(error, limit=-3))
            print(f"FAILED {question.name}: {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
    _report(device, found, failed, time.perf_counter() - start, options.out)
    sys.exit(1 if failed else 0)


def _report(
    device: torch.device, found: dict[str, float | None], failed: dict[str, str], seconds: float, out: Path | None
) -> None:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    for name, value in found.items():
        if name.startswith("speed_up/"):
            print(f"{name}: {value:.3g} times as fast as {torch.get_num_threads()} threads of the CPU")
    for kind in ("answers", "in_place", "learning", "fit", "suggestion"):
        values = [value or 0.0 for name, value in found.items() if name.startswith(f"{kind}/")]
        print(f"{kind}: {len(values)} agree, the largest difference {max(values, default=0.0):.2g}")
    print(f"laws: {sum(k.startswith('laws/') for k in found)} hold")
    print(f"{card}: {len(found)} questions answered, {len(failed)} failed, in {seconds:.0f} s")
    if out is not None:
        figures = [Figure(name, value, "") for name, value in found.items() if value is not None]
        numbers = {"card": card, "seconds": seconds, "answered": len(found), "failed": failed}
        write_json(out, figures, environment(["torch", "gpytorch", "botorch"]), **numbers)


if __name__ == "__main__":
    main()
