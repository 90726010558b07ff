"""How proposals learn: by the log density of blocks that a motif draws, new ones in each step.

This is the inclusive divergence from the block's distribution to the proposal, so what has probability is covered.
"""

from dataclasses import dataclass
from typing import TypeVar

from torch import Generator, Tensor

from bayesmeta.doors import require_count
from bayesmeta.motifs.motif import Motif
from bayesmeta.motifs.networks import BlockProposal
from bayesmeta.networks.learning.ascent import Ascent, Steps
from bayesmeta.networks.learning.progress_line import progress_line
from bayesmeta.numerics.gradients import gradients

__all__ = ["MotifSchedule", "learn"]

NUM_LOOKS = 40

P = TypeVar("P", bound=BlockProposal)


@dataclass(frozen=True)
class MotifSchedule:
    """How long a proposal learns.

    Args:
        num_steps: each from blocks that are drawn anew.
        num_blocks: of a step.
        rate: the highest.

    Raises:
        TypeError: a number is not whole.
        ValueError: a number is below one, or the rate is not above zero.
    """

    num_steps: int = 4000
    num_blocks: int = 512
    rate: float = 3e-3

    def __post_init__(self) -> None:
        require_count("num_steps", self.num_steps)
        require_count("num_blocks", self.num_blocks)
        if not 0.0 < self.rate < float("inf"):
            raise ValueError(f"rate must be finite and above zero; got {self.rate:g}")


DEFAULT = MotifSchedule()


def learn(
    proposal: P,
    motif: Motif,
    schedule: MotifSchedule = DEFAULT,
    *,
    progress: bool = False,
    generator: Generator | None = None,
) -> P:
    """The proposal after learning from blocks of a motif.

    Args:
        proposal: where learning starts, see `BlockProposal.initial`.
        progress: whether a line says how far it has come.

    Raises:
        ValueError: motif and proposal differ in their sizes.
    """
    if (proposal.num_inputs, proposal.num_values) != (motif.num_inputs, motif.num_values):
        raise ValueError(
            f"the proposal is for {proposal.num_inputs} inputs and {proposal.num_values} values; the motif has "
            f"{motif.num_inputs} and {motif.num_values}"
        )
    drawing = generator or Generator().manual_seed(0)

    def objective(weights: dict[str, Tensor]) -> Tensor:
        inputs, values = motif.draw(schedule.num_blocks, generator=drawing)
        return proposal.log_prob(weights, inputs, values).mean()

    steps = Steps(schedule.num_steps, schedule.rate, warm_up=0.03, longest=10.0, average=0.995, in_eigenbases=True)
    ascent = Ascent(proposal.weights, objective, steps, generator=drawing)
    with gradients(), progress_line("learning a proposal", shown=progress) as say:

        def look(_: dict[str, Tensor]) -> bool:
            say(f"learning a proposal: step {ascent.step}, {ascent.value:.3f} per block")
            return False

        return proposal.with_weights(ascent.run(look, interval=max(1, schedule.num_steps // NUM_LOOKS)))
