"""What a file holds of a Pyro prior: everything but the model, and by what the model is known again."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bayesmeta.fields import LearnedFrom
from bayesmeta.io import load_parts
from bayesmeta.mcmc.draws import Draws
from bayesmeta.mcmc.ladder.chains import Chains
from bayesmeta.pyro_models.reading.program import Program
from bayesmeta.pyro_models.reading.rows import Given
from bayesmeta.pyro_models.targets import ModelPrior, ModelTargets
from bayesmeta.random import randn

if TYPE_CHECKING:
    from bayesmeta.pyro_models.prior import PyroPrior

__all__ = ["loaded", "state_of"]

NEAR = 0.5  # of zero, unconstrained: where a model is tried
SETTINGS = ("num_draws", "num_chains", "seed")
OF_DRAWS = ("rung", "passed", "worst_rhat", "least_ess")


def state_of(prior: "PyroPrior") -> dict[str, Any]:
    """Tensors, numbers and strings that `loaded` puts together with the model."""
    learned_from = prior.learned_from
    return {
        "sites": prior.program.structure.kinds,
        "example": _of_given(prior.example),
        "loc": prior.loc,
        "scale_tril": prior.scale_tril,
        "given": None if prior.given is None else _of_given(prior.given),
        "draws": None if prior.draws is None else _of_draws(prior.draws),
        "learned_from": None if learned_from is None else [learned_from.tasks, learned_from.rows],
        **{name: getattr(prior, name) for name in SETTINGS},
    }


def loaded(family: "type[PyroPrior]", path: str | Path, model: Any, plate: str | None) -> "PyroPrior":
    """The prior that a file holds, of a model that has the sites that it was saved with.

    Raises:
        ValueError: the model has other sites; the message names one.
    """
    state = load_parts(path, family.__name__)
    example = Given(**state["example"])
    program = settled_program(model, example, plate)
    _require_sites(path, state["sites"], program.structure.kinds)
    given = None if state["given"] is None else Given(**state["given"])
    prior = family(
        program if given is None else program.at(given),
        example,
        state["loc"],
        state["scale_tril"],
        given,
        learned_from=None if state["learned_from"] is None else LearnedFrom(*state["learned_from"]),
        **{name: state[name] for name in SETTINGS},
    )
    if given is None:
        return prior
    targets = ModelTargets(ModelPrior(prior.program, given.filled(), prior.learned))
    kept = state["draws"]
    draws = Draws(
        Chains(**kept["chains"]),
        tuple(kept["rungs"]),
        **{name: kept[name] for name in OF_DRAWS},
        to_params=targets.constrain,
    )
    return prior._replace(draws=draws)


def settled_program(model: Any, example: Given, plate: str | None) -> Program:
    """The model, having found out how it runs at a data set."""
    program = Program.of(model, example.one(), plate)
    like = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    start = NEAR * randn((2, example.num_tasks, program.structure.d), like=like, generator=generator)
    return program.settled(example.filled(), start)


def _require_sites(path: str | Path, saved: dict[str, str], here: dict[str, str]) -> None:
    for name in (*saved, *here):
        if saved.get(name) != here.get(name):
            raise ValueError(
                f"cannot load {path}: it was saved with another model. Site {name!r} is {saved.get(name, 'missing')} "
                f"there and {here.get(name, 'missing')} here"
            )


def _of_given(given: Given) -> dict[str, Any]:
    return {"tensors": given.tensors, "mask": given.mask, "with_rows": given.with_rows, "alone": given.alone}


def _of_draws(draws: Draws) -> dict[str, Any]:
    chains = {field.name: getattr(draws.chains, field.name) for field in fields(Chains)}
    return {"chains": chains, "rungs": list(draws.rungs), **{name: getattr(draws, name) for name in OF_DRAWS}}
