"""Draws as arviz has them: chain, draw, task, and what each parameter has of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import arviz

    from bayesmeta.mcmc.draws import Draws

__all__ = ["inference_data", "write_netcdf"]

TASKS_AT_ONCE = 200  # that are written to a file together


def inference_data(
    draws: "Draws", *, observed_data: dict[str, Any] | None = None, log_likelihood: dict[str, Any] | None = None
) -> "arviz.InferenceData":
    """`posterior`, `sample_stats`, and what is given of `observed_data` and `log_likelihood`.

    Args:
        observed_data: arrays `(tasks, ...)` by name.
        log_likelihood: arrays `(chains, draws, tasks, ...)` by name.
    """
    import arviz

    posterior = {name: _numpy(value) for name, value in draws.params.items()}
    stats = {name: _numpy(value.permute(1, 2, 0)) for name, value in _by_draw(draws).items()}
    groups: dict[str, Any] = {"posterior": posterior, "sample_stats": stats}
    if observed_data is not None:
        groups["observed_data"] = {name: np.asarray(value) for name, value in observed_data.items()}
    if log_likelihood is not None:
        groups["log_likelihood"] = {name: np.asarray(value) for name, value in log_likelihood.items()}
    named = {**posterior, **stats, **groups.get("observed_data", {}), **groups.get("log_likelihood", {})}
    found = arviz.from_dict(**groups, coords={"task": np.asarray(draws.names)}, dims={name: ["task"] for name in named})
    found.sample_stats["step"] = ("task", np.array(draws.rungs)[draws.rung.numpy()])
    found.sample_stats["pareto_k"] = ("task", _numpy(draws.chains.pareto_k))
    return found


def _by_draw(draws: "Draws") -> dict[str, Tensor]:
    """`(tasks, chains, draws)` by the names that arviz gives them."""
    chains = draws.chains
    return {
        "lp": chains.log_density,
        "log_q": chains.log_proposal,
        "log_weight": chains.log_density - chains.log_proposal,
        "acceptance_rate": chains.acceptance_rate,
        "is_accepted": chains.is_accepted,
    }


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()


def write_netcdf(draws: "Draws", path: Path) -> Path:
    """Groups `posterior` and `sample_stats` of a netCDF file, written task by task so that no copy of all is made."""
    import h5netcdf

    partial = path.with_name(path.name + ".part")
    with h5netcdf.File(partial, "w") as file:
        _write_group(file.create_group("posterior"), draws, params=True)
        _write_group(file.create_group("sample_stats"), draws, params=False)
    partial.replace(path)
    return path


def _write_group(group: Any, draws: "Draws", *, params: bool) -> None:
    import h5py

    _, _, chains, num_draws = draws.chains.position.shape
    group.dimensions = {"chain": chains, "draw": num_draws, "task": draws.num_tasks}
    for name, labels in (("chain", range(chains)), ("draw", range(num_draws)), ("task", draws.names)):
        values = np.asarray(list(labels))
        text = values.dtype.kind not in "iuf"
        dtype: Any = h5py.string_dtype() if text else values.dtype
        group.create_variable(name, (name,), dtype=dtype, data=values.astype(object) if text else values)
    for first in range(0, draws.num_tasks, TASKS_AT_ONCE):
        part = slice(first, first + TASKS_AT_ONCE)
        if params:
            position = draws.position[:, :, part]
            found = {"position": position} if draws.to_params is None else draws.to_params(position)
        else:
            found = {name: value[part].permute(1, 2, 0) for name, value in _by_draw(draws).items()}
        for name, value in found.items():
            if first == 0:
                extra = [f"{name}_dim_{i}" for i in range(value.ndim - 3)]
                for dim, size in zip(extra, value.shape[3:], strict=True):
                    group.dimensions[dim] = size
                dtype = np.dtype("i1") if str(value.dtype) == "torch.bool" else _numpy(value[:0]).dtype
                group.create_variable(name, ("chain", "draw", "task", *extra), dtype=dtype)
            group.variables[name][:, :, part] = _numpy(value)
