"""Draws of the posteriors of many tasks, and a report of how far each is to be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesmeta.describe import Described, plural
from bayesmeta.mcmc.diagnostics import effective_size, rhat
from bayesmeta.mcmc.ladder.chains import Chains

if TYPE_CHECKING:
    import arviz
    import polars

__all__ = ["Draws"]


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Described):
    """What `bayesmeta.mcmc.sample` found.

    Args:
        chains: draws, their densities and what the kernels did.
        rungs: names of the rungs of the ladder.
        rung: on which of them each task ended `(T,)`.
        passed: whether it passed its checks there `(T,)`.
        worst_rhat: largest split R-hat of any coordinate `(T,)`.
        least_ess: least effective draws of any coordinate, by batch means `(T,)`; `report` has the exact ones.
        to_params: from positions to parameters by name.
        task_names: labels of the tasks.
        unlike: which were unlike those that a learned proposal knew, and began on the next rung `(T,)`; None for none.
    """

    chains: Chains
    rungs: tuple[str, ...]
    rung: Tensor
    passed: Tensor
    worst_rhat: Tensor
    least_ess: Tensor
    to_params: Callable[[Tensor], dict[str, Tensor]] | None = None
    task_names: Sequence[Any] | None = None
    unlike: Tensor | None = None

    @property
    def num_tasks(self) -> int:
        return len(self.rung)

    @property
    def position(self) -> Tensor:
        """Unconstrained draws `(chains, draws, tasks, d)`, a view."""
        return self.chains.position.permute(2, 3, 0, 1)

    @property
    def params(self) -> dict[str, Tensor]:
        """Parameters by name, `(chains, draws, tasks, ...)`."""
        return {"position": self.position} if self.to_params is None else self.to_params(self.position)

    @property
    def names(self) -> list[Any]:
        return list(range(self.num_tasks)) if self.task_names is None else list(self.task_names)

    @property
    def log_evidence(self) -> Tensor:
        """log p(data) of each task `(T,)` by importance sampling; NaN where no proposal was at work."""
        return self.chains.log_evidence

    @property
    def log_evidence_error(self) -> Tensor:
        """Its standard error `(T,)`."""
        return self.chains.log_evidence_error

    @cached_property
    def ess_bulk(self) -> Tensor:
        """Effective draws `(T, d)` for the bulk of each coordinate."""
        return effective_size(self.position)

    @cached_property
    def ess_tail(self) -> Tensor:
        """Effective draws `(T, d)` for 5% and 95% quantiles of each coordinate."""
        return effective_size(self.position, kind="tail")

    @cached_property
    def rhat(self) -> Tensor:
        """Rank-normalised R-hat `(T, d)` of each coordinate."""
        return rhat(self.position)

    def report(self) -> "polars.DataFrame":
        """A row for each task: the rung it ended on, whether it passed, k, R-hat, effective draws, evidence.

        `unlike` says which tasks were too far from those of a learned proposal for it to be asked.
        """
        import polars

        return polars.DataFrame(
            {
                "task": self.names,
                "step": [self.rungs[i] for i in self.rung.tolist()],
                "passed": self.passed.tolist(),
                "unlike": [False] * self.num_tasks if self.unlike is None else self.unlike.tolist(),
                "pareto_k": self.chains.pareto_k.tolist(),
                "rhat": self.rhat.amax(-1).tolist(),
                "ess_bulk": self.ess_bulk.amin(-1).tolist(),
                "ess_tail": self.ess_tail.amin(-1).tolist(),
                "acceptance_rate": self.chains.is_accepted.double().mean((-1, -2)).tolist(),
                "log_evidence": self.log_evidence.tolist(),
                "log_evidence_error": self.log_evidence_error.tolist(),
            }
        )

    def to_arviz(
        self, *, observed_data: dict[str, Any] | None = None, log_likelihood: dict[str, Any] | None = None
    ) -> "arviz.InferenceData":
        """The draws as arviz has them, with the dimension `task`; see `bayesmeta.mcmc.inference_data`."""
        from bayesmeta.mcmc.inference_data import inference_data

        return inference_data(self, observed_data=observed_data, log_likelihood=log_likelihood)

    def to_netcdf(self, path: str | Path) -> Path:
        """Write the draws to a file that `arviz.from_netcdf` opens, a few tasks at a time."""
        from bayesmeta.mcmc.inference_data import write_netcdf

        return write_netcdf(self, Path(path))

    def _title(self) -> str:
        _, _, chains, draws = self.chains.position.shape
        return f"of {plural(self.num_tasks, 'task')}: {plural(chains, 'chain')} of {plural(draws, 'draw')} each"

    def _parts(self) -> dict[str, Any]:
        counts = torch.bincount(self.rung, minlength=len(self.rungs)).tolist()
        steps = ", ".join(f"{name} {count}" for name, count in zip(self.rungs, counts, strict=True) if count)
        num_unlike = 0 if self.unlike is None else int(self.unlike.sum())
        failed = int((~self.passed).sum())
        unlike = {"unlike": f"{plural(num_unlike, 'task')}, not proposed to by what was learned"} if num_unlike else {}
        untrusted = {"failed": f"{failed} of {plural(self.num_tasks, 'task')}"} if failed else {}
        return {
            "steps": steps,
            **unlike,
            **untrusted,
            "R-hat": f"at most {self.worst_rhat.max():.3f}",
            "ESS": f"at least {self.least_ess.min():.0f}, 5th percentile {self.least_ess.quantile(0.05):.0f}",
        }
