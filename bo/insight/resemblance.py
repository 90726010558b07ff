"""Which past tasks a running study is like, by the evidence of its trials so far."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jaxtyping import Float
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.describe import Described
from bayesmeta.gp.transfer import TransferHypotheses, likeness, trust
from bo.acquisition.one_posterior import learned_from_study
from bo.acquisition.schedule import Turns
from bo.acquisition.suggester import StudyState
from bo.priors.tuning_prior import TuningPrior
from bo.samplers.history import History

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["IN_PART", "KERNEL", "NOTHING", "WHOLE", "Resemblance", "resemblance", "study_rows"]

# what a study is, wherever that is shown
WHOLE, IN_PART = "like the past as a whole", "like one of the past tasks"
KERNEL, NOTHING = "as smooth as the past, no more", "like nothing in the past"


@dataclass(frozen=True, eq=False)
class Resemblance(Described):
    """Probabilities of what applies to a study; all of them together add up to one.

    Args:
        tasks: that it is like one past task, in the order of `prior.past`; zero for those that another one, close to
            them, stands for.
        whole: that the past applies as a whole, by the mean of past functions and the directions in which they differ.
        kernel: that only their smoothness does.
        nothing: that nothing does.
    """

    tasks: Float[Tensor, " tasks"]
    whole: float
    kernel: float
    nothing: float


def resemblance(prior: TuningPrior, rows: Data) -> Resemblance:
    """What applies to a study after its rows, as `MetaSampler` weighs it.

    Args:
        prior: learned from past tasks.
        rows: what was evaluated, as points of `prior.space`, `y` being the objective in its own units; see
            `study_rows`. None at all gives the probabilities before the first trial.

    Raises:
        ValueError: the prior does not weigh how far the past applies.
    """
    if not isinstance(prior.suggester, Turns):
        raise ValueError(
            "this prior does not weigh how far the past applies to a study; learn one with TuningPrior.from_studies"
        )
    study = StudyState(prior.space, rows, rows.x[:0], prior.direction == "maximize")
    hypotheses = cast(TransferHypotheses, learned_from_study(prior.suggester.hypotheses, study, scores=True).functions)
    tasks, shares = likeness(hypotheses), trust(hypotheses)
    whole = shares["past"] - tasks.sum()
    return Resemblance(tasks, float(whole), float(shares["kernel"]), float(shares["nothing"]))


def study_rows(prior: TuningPrior, study: "Study") -> Data:
    """What the trials of a study say, as points of `prior.space`: see `bo.samplers.history`.

    Raises:
        ValueError: the study has several objectives, or another direction than the prior.
    """
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [prior.direction]:
        raise ValueError(
            f"this prior was learned to {prior.direction}, and study {study.study_name!r} is to "
            f"{' and '.join(directions)}"
        )
    history = History(prior.space, maximize=prior.direction == "maximize")
    history.read(study.get_trials(deepcopy=False))
    numbers, y = history.evaluated()
    return Data.of(prior.space.encode(numbers), y)
