r"""How far to trust the past on a new task: a question of evidence, asked again after every row.

A learned Gaussian process is right about a new task only if that task resembles the past ones. So several hypotheses
are kept at once and weighted by their marginal likelihood on the new task's rows:

- the past applies as a whole: the mean of past functions, and variation along them, little or much of it;
- the past applies in part: the new task is like one of the past tasks, all of them equally likely;
- only the learned kernel applies: functions are as smooth as they used to be, in the same inputs;
- nothing applies: isotropic processes of several lengthscales.

In the first two, a residual of little or much variance is added for what no past task showed; outside the range of
past inputs, where nothing was seen of any task, it has the variance of all past rows. Each hypothesis comes at
several scales of y, since the rows of a new task, seen first where the past was good, show only a part of its range.
Noise is not the learned one: a past without structure explains everything by noise, and would keep the others from
learning too.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.mixture import Mixture

__all__ = [
    "GROUPS",
    "NUM_DOUBTING",
    "TRUSTING",
    "TransferHypotheses",
    "likeness",
    "transfer_hypotheses",
    "trust",
    "trusting",
]

GROUPS = ("whole", "part", "kernel", "nothing")  # of hypotheses, in their order
TRUSTING = GROUPS[:2]  # those in which past functions apply in some form

# Prior weights and grids, fixed in advance; their exact values matter little (docs/experiments.md).
AS_A_WHOLE, IN_PART = 0.5, 0.3  # prior probabilities; the rest is for hypotheses that doubt the past
DIRECTION_FACTORS = (0.05, 0.45, 3.2)  # of the second moment of past functions
RESIDUALS = (0.1, 0.3, 1.0)  # variance of what no past task showed, as shares of the variance of past rows
LENGTHSCALES = (0.15, 0.3, 0.6)  # of vague processes, as shares of the diagonal of the past inputs' box
NUM_DOUBTING = 1 + len(LENGTHSCALES)
NOISE = 0.05  # relative to the variance of past rows
SCALES = tuple(math.exp(-1.5 + 0.5 * i) for i in range(6))
LEVEL_VAR = 4.0  # of the level, relative to the variance of past rows
MAX_LIKE = 12  # past tasks that stand for all in the hypotheses that one of them applies


class _Structure(NamedTuple):
    """One hypothesis about a new task, but for its scale."""

    past_weight: Tensor
    past_loading: Tensor
    past_var: Tensor
    outputscale: Tensor
    lengthscale: Tensor
    beyond_var: Tensor


@dataclass(frozen=True, eq=False)
class TransferHypotheses(Mixture):
    """Hypotheses about how far the past applies to a new task: a mixture (structures) of mixtures (scales).

    Args:
        components: the structures, each a `Mixture` over `SCALES`.
        log_weights: of the structures.
        sizes: how many structures each of `GROUPS` has: the past applies as a whole; in part, the new task being like
            one of the past ones; its kernel alone does; nothing does.
    """

    sizes: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sizes) != len(GROUPS) or min(self.sizes) < 0 or sum(self.sizes) != self.log_weights.shape[-1]:
            raise ValueError(
                f"sizes must add up to {self.log_weights.shape[-1]} hypotheses, one for each of {', '.join(GROUPS)}; "
                f"got {self.sizes}"
            )

    @classmethod
    def of_earlier(cls, mixture: Mixture) -> "TransferHypotheses":
        """What versions without groups saved as a mixture.

        Raises:
            ValueError: these are other hypotheses, or some of them.
        """
        num_whole = len(DIRECTION_FACTORS) * len(RESIDUALS)
        num_part = mixture.log_weights.shape[-1] - num_whole - NUM_DOUBTING
        if num_part < 0 or not _doubt_the_past(mixture, NUM_DOUBTING):
            raise ValueError("these are not all hypotheses of transfer_hypotheses, so their groups are not known")
        return cls(mixture.components, mixture.log_weights, (num_whole, num_part, 1, len(LENGTHSCALES)))

    def __getitem__(  # type: ignore[override]  # some of them have no groups
        self, index: slice | Int64[Tensor, " chosen"]
    ) -> Mixture:
        """Some of the tasks; without a batch some of the hypotheses, as a mixture without groups."""
        return super().__getitem__(index) if self.batch_shape else Mixture(self.components, self.log_weights)[index]

    def group(self, name: str) -> slice:
        """Where the hypotheses of one of `GROUPS` are.

        Raises:
            ValueError: there is no such group.
        """
        if name not in GROUPS:
            raise ValueError(f"a group is one of {', '.join(GROUPS)}; got {name!r}")
        place = GROUPS.index(name)
        return slice(sum(self.sizes[:place]), sum(self.sizes[: place + 1]))

    def given(self, *groups: str) -> Mixture:
        """The hypotheses of some groups, given that one of them is true.

        Raises:
            ValueError: no group is named, or there is a batch of tasks.
        """
        if not groups:
            raise ValueError(f"name one group or more of {', '.join(GROUPS)}")
        _require_one_task(self)
        every = torch.arange(self.log_weights.shape[-1], device=self.log_weights.device)
        return self[torch.cat([every[self.group(name)] for name in groups])]

    def probability(self, *groups: str) -> Float[Tensor, "*batch"]:
        """That a hypothesis of one of the groups is true."""
        none = torch.zeros_like(self.log_weights[..., 0])
        return sum((self.weights[..., self.group(name)].sum(-1) for name in groups), none)


def transfer_hypotheses(
    learned: GaussianProcess, task_weights: Float[Tensor, " tasks"] | None = None
) -> TransferHypotheses:
    """A mixture (structures) of mixtures (scales) of Gaussian processes, around one that was learned from past tasks.

    Args:
        learned: the process.
        task_weights: how much each past task counts for the new one, together one; None for all alike.

    Raises:
        ValueError: `learned` has no past functions, or has a batch.
    """
    if not isinstance(learned, GaussianProcess):
        raise TypeError(f"transfer_hypotheses needs a GaussianProcess; got {type(learned).__name__}")
    if learned.past is None or learned.past.loadings is None or learned.batch_shape:
        raise ValueError("transfer_hypotheses needs one prior learned from past tasks; use GaussianProcess.fit(tasks)")
    points = learned.past.points
    functions = learned.past.each(points)
    if task_weights is None:
        about_mean, task_weights = learned.past, torch.full_like(functions[0], 1.0 / functions.shape[1])
    else:
        about_mean = learned.past.weighted(task_weights)
    past = about_mean.about_zero()
    total = functions.var(0, correction=0).mean() + learned.noise_var
    zero, one, span = torch.zeros_like(total), torch.ones_like(total), points.amax(0) - points.amin(0)
    diagonal = span.where(span > 0, 1.0) * math.sqrt(len(span))
    nowhere = torch.zeros_like(past.directions[0])
    like, shares = _representatives(functions.mT, task_weights)

    # beyond the range of past inputs, where past functions vanish, the residual has the variance of all rows
    residuals = [(r * total, learned.lengthscale, (1.0 - r) * total) for r in RESIDUALS]
    whole = [_Structure(one, nowhere, f * one, *residual) for f in DIRECTION_FACTORS for residual in residuals]
    part = [
        _Structure(zero, loading, zero, *residual)
        for loading in cast(Tensor, past.loadings).mT[like]
        for residual in residuals
    ]
    kernel = [_Structure(zero, nowhere, zero, total, learned.lengthscale, zero)]
    nothing = [_Structure(zero, nowhere, zero, total, share * diagonal, zero) for share in LENGTHSCALES]
    structures = [*whole, *part, *kernel, *nothing]
    # structures along the first axis, scales along the second
    fields: dict[str, Any] = {
        name: torch.stack(each)[:, None]
        for name, each in zip(_Structure._fields, zip(*structures, strict=True), strict=True)
    }
    processes = replace(
        learned,
        **fields,
        past=past,
        noise_var=NOISE * total,
        constant_var=LEVEL_VAR * total,
        scale=torch.tensor(SCALES).to(total),
    )
    weights = torch.cat(
        [
            torch.full((len(whole),), AS_A_WHOLE / len(whole)),
            (IN_PART / len(RESIDUALS) * shares).repeat_interleave(len(RESIDUALS)),
            torch.full((NUM_DOUBTING,), (1.0 - AS_A_WHOLE - IN_PART) / NUM_DOUBTING),
        ]
    )
    sizes = (len(whole), len(part), len(kernel), len(nothing))
    return TransferHypotheses(Mixture.uniform(processes).to(total), weights.to(total).log(), sizes)


def trusting(hypotheses: Mixture) -> Mixture:
    """The same hypotheses, given that the past applies in some form."""
    return _in_groups(hypotheses).given(*TRUSTING)


def trust(hypotheses: Mixture) -> dict[str, Tensor]:
    """Posterior probabilities that the past applies, that only its kernel does, and that nothing does."""
    if not isinstance(hypotheses, Mixture):
        raise TypeError(f"trust needs the Mixture of transfer_hypotheses; got {type(hypotheses).__name__}")
    grouped = _in_groups(hypotheses)
    return {
        "past": grouped.probability(*TRUSTING),
        "kernel": grouped.probability("kernel"),
        "nothing": grouped.probability("nothing"),
    }


def likeness(hypotheses: Mixture) -> Float[Tensor, " tasks"]:
    """Posterior probabilities that the new task is like each past one; zero for those that others stand for.

    What they lack of `trust(hypotheses)["past"]` is the probability that the past applies as a whole.
    """
    _require_one_task(hypotheses)
    in_part = _in_groups(hypotheses).group("part")
    processes = cast(GaussianProcess, cast(Mixture, hypotheses.components).components)
    of_past = cast(Tensor, cast(PastFunctions, processes.past).loadings)
    # each is the loading of its task as it stands, so that equality finds the task
    loadings = processes.past_loading[in_part, 0]
    task = (loadings[:, None] == of_past.mT).all(-1).int().argmax(-1)
    found = torch.zeros_like(of_past[0])
    return found.index_add(0, task, hypotheses.weights[in_part])


def _require_one_task(hypotheses: Mixture) -> None:
    if hypotheses.batch_shape:
        raise ValueError(
            f"hypotheses of one task are needed; got those of tasks of shape {tuple(hypotheses.batch_shape)}. Take one "
            "task by its index"
        )


def _doubt_the_past(mixture: Mixture, num: int) -> bool:
    """Whether the last hypotheses, and these alone, make no use of past functions."""
    processes = mixture.components.components if isinstance(mixture.components, Mixture) else None
    if not isinstance(processes, GaussianProcess) or processes.past is None:
        return False
    shape = processes.batch_shape
    weight, var = (value.expand(shape) for value in (processes.past_weight, processes.past_var))
    loading = processes.past_loading.expand(*shape, processes.past_loading.shape[-1])
    used = ((weight != 0) | (var != 0) | (loading != 0).any(-1)).any(-1)
    return bool(used[..., :-num].all()) and not bool(used[..., -num:].any())


def _in_groups(hypotheses: Mixture) -> TransferHypotheses:
    return hypotheses if isinstance(hypotheses, TransferHypotheses) else TransferHypotheses.of_earlier(hypotheses)


def _representatives(
    functions: Float[Tensor, "tasks points"], weights: Float[Tensor, " tasks"]
) -> tuple[Tensor, Tensor]:
    """At most MAX_LIKE tasks that the others are near to, greedily, and the weight of all that each stands for."""
    gap = torch.cdist(functions, functions, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = torch.full_like(gap[0], torch.inf)
    chosen: list[int] = []
    while len(chosen) < min(MAX_LIKE, len(gap)):
        after = torch.minimum(gap, nearest) @ weights
        after[chosen] = torch.inf
        chosen.append(int(after.argmin()))
        nearest = torch.minimum(nearest, gap[chosen[-1]])
    belongs = gap[chosen].argmin(0)
    return torch.tensor(chosen), torch.zeros(len(chosen)).to(weights).index_add(0, belongs, weights)
