"""A Gaussian process from scratch as an Optuna sampler."""

from torch import Generator, Tensor

from bo.samplers.point_sampler import PointSampler
from bo.samplers.request import Request
from bo.single_study.baseline import NUM_INITIAL, scratch_acquisition
from bo.values import InOwnSpace

__all__ = ["ScratchSampler"]


class ScratchSampler(PointSampler):
    """A Gaussian process from scratch as an Optuna sampler, searching the same candidates as `MetaSampler`."""

    def _propose(self, request: Request) -> tuple[Tensor, str]:
        num_tried = len(request.y) + len(request.own.pending)
        # a spread takes two objectives, and many trials may be running before there are
        if num_tried < NUM_INITIAL or len(request.y) < 2:
            num = max(NUM_INITIAL, num_tried + 1)
            initial = request.view.space.sobol(num, generator=Generator().manual_seed(self._seed))
            return initial[num_tried], ""
        return request.climb(InOwnSpace(scratch_acquisition(request.own.x, request.better))), ""
