"""A Gaussian process from scratch as an Optuna sampler."""

from torch import Generator, Tensor

from bo.samplers.point_sampler import PointSampler
from bo.samplers.request import Question
from bo.single_study.baseline import NUM_INITIAL, scratch_acquisition
from bo.values import InOwnSpace

__all__ = ["ScratchSampler"]


class ScratchSampler(PointSampler):
    """A Gaussian process from scratch as an Optuna sampler, searching the same candidates as `MetaSampler`."""

    def _propose(self, question: Question) -> tuple[Tensor, str]:
        num_tried = len(question.y) + len(question.pending)
        # a spread takes two objectives, and many trials may be running before there are
        if num_tried < NUM_INITIAL or len(question.y) < 2:
            num = max(NUM_INITIAL, num_tried + 1)
            initial = question.view.space.sobol(num, generator=Generator().manual_seed(self._seed))
            return initial[num_tried], ""
        return question.climb(InOwnSpace(scratch_acquisition(question.own.x, question.better))), ""
