"""Files that an earlier version wrote, with the answers that it gave: later versions load them and answer the same.

    python -m tests.saved_files tuning_in_turns     # writes this one; all, where none is named

What is written anew is no file of an earlier version any more: name what is new.

A prior is kept with rows and the evidence of these, before and after it was conditioned on half of them; a proposal
with its density at two points, given a task, and how far that task is; a prior for tuning with points and what it
expects there; a policy with what it expects of its arms and chooses next; a proposal
of blocks with the densities that it gives them.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import bayesmeta as bm
from bandits import Policy
from bayesmeta import Data
from bayesmeta.amortised import AmortisedProposal, ProposalSchedule
from bayesmeta.hyperparameters.feature_prior import FeaturePrior
from bayesmeta.motifs import BernoulliProposal, LearnedDeal, NormalProposal, Partitions, SplitProposal
from bayesmeta.motifs.partitions.kernels import Sides
from bayesmeta.neural_processes import (
    BernoulliHead,
    CategoricalHead,
    CountHead,
    Head,
    HistogramHead,
    MixtureHead,
    StudentHead,
)
from bayesmeta.random import randn
from bo import SearchSpace, TuningPrior, fit_rgpe
from tests.bandits.testing.cases import CASES
from tests.bayesmeta.amortised.conjugate import simulate
from tests.bo.past import SPACE, loss
from tests.families import F64, FAMILIES, moved
from tests.seeds import seed, shifted

__all__ = ["SAVED", "densities_of", "evidence_of", "expectations_of", "next_of", "read_answers", "told"]

SAVED = Path(__file__).parent / "saved"
ANSWERS = "answers.json"
NUM_ROWS = 6


def read_answers() -> dict[str, Any]:
    return json.loads((SAVED / ANSWERS).read_text())


def told(prior: Any) -> Any:
    """Where a prior depends on features of a task, that of one task."""
    return prior.given(torch.ones(1)) if isinstance(prior, FeaturePrior) else prior


def evidence_of(prior: Any, rows: Data) -> list[float]:
    """Of all rows, and of the later half after the earlier one where a prior is conditioned."""
    if isinstance(prior, bm.NeuralDiffusionProcess):
        return [float(prior.log_evidence(rows))]
    first, last = rows.rows(slice(0, NUM_ROWS // 2)), rows.rows(slice(NUM_ROWS // 2, NUM_ROWS))
    return [float(prior.log_evidence(rows)), float(prior.condition(first).log_evidence(last))]


def densities_of(proposal: AmortisedProposal) -> list[float]:
    """At two points, given the rows 0, 1, ... of each column, and how far that task is."""
    rows = torch.arange(4.0 * proposal.num_columns).double().reshape(1, 4, -1)
    points = torch.stack([proposal.loc, proposal.loc + 1.0]).double()[:, None]
    assert proposal.distance is not None
    far = proposal.distance(proposal.summaries(rows))
    return [*proposal(rows).log_prob(points).flatten().tolist(), *far.tolist()]


def expectations_of(prior: TuningPrior, points: Data) -> list[float]:
    """What is expected at points, before and after their values are known."""
    before, after = prior.functions, prior.functions.condition(points.rows(slice(0, NUM_ROWS // 2)))
    return [*before.marginal(points.x).mean.tolist(), *after.marginal(points.x).mean.tolist()]


def next_of(policy: Policy, context: torch.Tensor | None) -> dict[str, Any]:
    """What is expected of all arms in the first task, and the arms that are chosen next."""
    expected = policy.expected_rewards(context, task=0)
    chosen = policy.choose(context, task=[0], propensities=False)
    return {"expected": expected.flatten().tolist(), "chosen": [str(name) for name in chosen.arms]}


def densities_of_blocks(proposal: Any) -> list[float]:
    """Of three blocks; for splits, of three pairs of parts."""
    if isinstance(proposal, SplitProposal):
        line = torch.linspace(-1.0, 1.0, 36, dtype=torch.float64)
        points = torch.stack([line, line.square()], -1).reshape(3, 12, 2)
        one = torch.ones(3, dtype=torch.float64)
        sides = (torch.arange(30) % 3 == 0).reshape(1, 3, 10)
        parts = Sides(
            points[None, :, :2], points[None, :, 2:], torch.ones_like(sides), sides, torch.zeros(1, 3, dtype=torch.bool)
        )
        return (
            LearnedDeal(proposal)
            .deal(Partitions(points, one, 0.1 * one, 2.0 * one, one), parts, seed(0))[1][0]
            .tolist()
        )
    inputs = torch.linspace(-1.0, 1.0, 3 * proposal.num_inputs).reshape(3, -1)
    values = (torch.arange(3 * proposal.num_values) % 2).reshape(1, 3, -1).float()
    return proposal.blocks(inputs).log_prob(values)[0].tolist()


# ---- what is written

X = torch.linspace(0.0, 1.0, NUM_ROWS, dtype=torch.float64)[:, None]
HEADS: dict[str, type[Head]] = {
    "student": StudentHead,
    "mixture": MixtureHead,
    "histogram": HistogramHead,
    "bernoulli": BernoulliHead,
    "categorical": CategoricalHead,
    "counts": CountHead,
}
HEAD_ROWS = {
    **{name: [0.5, -1.0, 2.0, 0.3, 0.1, -0.4] for name in ("student", "mixture", "histogram")},
    "bernoulli": [0.0, 1.0, 1.0, 0.0, 1.0, 1.0],
    "categorical": bm.one_hot([0, 2, 1, 1, 0, 2], 3).tolist(),
    "counts": [0.0, 3.0, 1.0, 7.0, 2.0, 2.0],
}


def with_head(head: type[Head], y: list[Any]) -> tuple[bm.ConditionalNeuralProcess, Data]:
    values = torch.tensor(y, dtype=torch.float64)
    rows = Data.of(X, values, event_dim=values.ndim - 1)
    return bm.ConditionalNeuralProcess.initial(rows, head=head, width=4, num_layers=1), rows


def priors() -> dict[str, tuple[Any, Data]]:
    found = {name: (family.prior, family.rows(NUM_ROWS)) for name, family in FAMILIES.items()}
    tasks = Data.of(None, torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    tasks = Data(tasks.x, tasks.y, tasks.mask, torch.tensor([[0.0], [1.0], [2.0]]))
    featured = bm.fit_with_features(bm.BetaBernoulli.initial(tasks), tasks)
    found |= {f"conditional_{name}": with_head(head, HEAD_ROWS[name]) for name, head in HEADS.items()}
    process, shelf = over_arms_with_features()
    found["diffusion_of_features"] = (process, shelf)
    found["diffusion_over_arms_with_features"] = (process.over(shelf.x[0]), FAMILIES["diffusion"].rows(NUM_ROWS))
    found["feature_prior"] = (featured, FAMILIES["beta_bernoulli"].rows(NUM_ROWS))
    return found


def over_arms_with_features() -> tuple[bm.NeuralDiffusionProcess, Data]:
    """Whose network is asked, and one task of three arms, each with two rows."""
    generator = seed(3)
    x = randn((1, 3, 2), like=F64, generator=generator).repeat(1, 2, 1)
    shelf = Data.of(x, randn((1, 6), like=F64, generator=generator))
    start = bm.NeuralDiffusionProcess.initial(shelf, width=8, num_heads=2, num_layers=1, num_levels=4)
    return replace(start, network=moved(start.network, 10), gates=torch.full_like(start.gates, 0.5)), shelf


def proposals() -> dict[str, AmortisedProposal]:
    start = AmortisedProposal.initial(
        simulate, generator=seed(0), num_components=2, width=4, num_layers=1, num_attention=1, num_heads=2
    )
    return {"amortised": start.fit(simulate, schedule=ProposalSchedule(2, 4), generator=seed(1), progress=False)}


def block_proposals() -> dict[str, Any]:
    start: dict[str, Any] = {
        "bernoulli_proposal": BernoulliProposal.initial(num_inputs=5, num_values=3, width=8, num_layers=1),
        "normal_proposal": NormalProposal.initial(num_inputs=5, num_values=2, width=8, num_layers=1),
        "split_proposal": SplitProposal.initial(width=8),
    }
    return {name: moved(proposal, number) for number, (name, proposal) in enumerate(start.items())}


def tuning_priors() -> dict[str, TuningPrior]:
    space = SearchSpace(SPACE, {"depth": ("kind", ("tree", "forest"))})
    x = space.sobol(40, generator=seed(0)).reshape(4, 10, -1)
    losses = [
        [loss({"depth": 1, **params}, shift=0.05 * task) for params in space.from_unit(x[task])] for task in range(4)
    ]
    tasks = Data.of(x, torch.tensor(losses, dtype=torch.float64))
    featured = Data(tasks.x, tasks.y, tasks.mask, torch.arange(4.0, dtype=torch.float64)[:, None])
    constraints = {"rate": x[..., 0] - 0.7}
    shared = Data.of(x[:1].expand(4, -1, -1), tasks.y)
    return {
        "tuning_with_shared_configurations": TuningPrior.fit(space, shared, "minimize"),
        "tuning": TuningPrior.fit(space, tasks, "minimize", task_names=["a", "b", "c", "d"], constraints=constraints),
        "tuning_with_features": TuningPrior.fit(space, featured, "minimize", feature_names=["rows"]),
        "rgpe": fit_rgpe(space, tasks, "minimize", seed=shifted(0)),
        "tuning_in_turns": TuningPrior.fit(space, featured, "minimize", feature_names=["rows"]),
        "tuning_by_one_posterior": fit_rgpe(space, tasks, "minimize", seed=shifted(0)),
    }


def policies() -> dict[str, tuple[Policy, torch.Tensor | None]]:
    found = {name.replace(" ", "_"): (case.policy(3), case.width) for name, case in CASES.items()}
    found["named"] = (CASES["shared"].policy(), 0)
    played = {}
    for name, (policy, width) in found.items():
        generator = seed(len(name))
        for _ in range(5):
            context = torch.randn(1, width, generator=generator) if width else None
            policy.update(policy.choose(context, task=[0]), [1.0])
        played[name] = (policy, torch.randn(1, width, generator=generator) if width else None)
    return played


def main(names: Sequence[str]) -> None:
    SAVED.mkdir(exist_ok=True)
    answers: dict[str, Any] = {"priors": {}, "proposals": {}, "tuning": {}, "policies": {}, "blocks": {}}
    if names:
        answers |= read_answers()

    def chosen(found: dict[str, Any]) -> list[tuple[str, Any]]:
        return [(name, each) for name, each in found.items() if not names or name in names]

    for name, (prior, rows) in chosen(priors()):
        bm.save(prior, SAVED / f"{name}.safetensors")
        bm.save(rows, SAVED / f"{name}.rows.safetensors")
        answers["priors"][name] = evidence_of(told(prior), rows)
    for name, proposal in chosen(proposals()):
        bm.save(proposal, SAVED / f"{name}.safetensors")
        answers["proposals"][name] = densities_of(proposal)
    for name, tuning in chosen(tuning_priors()):
        x = tuning.space.sobol(NUM_ROWS, generator=seed(1))
        points = Data.of(x, torch.linspace(-1.0, 1.0, NUM_ROWS, dtype=torch.float64))
        bm.save(tuning, SAVED / f"{name}.safetensors")
        bm.save(points, SAVED / f"{name}.rows.safetensors")
        answers["tuning"][name] = expectations_of(tuning, points)
    for name, (policy, context) in chosen(policies()):
        policy.save(SAVED / f"policy_{name}.safetensors")
        listed = None if context is None else context.tolist()
        answers["policies"][name] = {"context": listed, **next_of(policy, context)}
    for name, proposal in chosen(block_proposals()):
        bm.save(proposal, SAVED / f"{name}.safetensors")
        answers["blocks"][name] = densities_of_blocks(proposal)
    if not names:
        bm.save(policies()["diagonal"][0].sums(), SAVED / "sums.safetensors")
    (SAVED / ANSWERS).write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
