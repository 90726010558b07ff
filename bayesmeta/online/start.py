"""Start of a posterior in place: the way of keeping rows that suits a prior."""

from collections.abc import Sequence

from bayesmeta.online.kept_rows import OnlineRows
from bayesmeta.online.protocol import InPlace, Online
from bayesmeta.online.sums import OnlineStatistics, Summed
from bayesmeta.protocol import Predictive

__all__ = ["online"]


def online(prior: "Predictive | InPlace", batch_shape: Sequence[int]) -> Online:
    """The posterior of `batch_shape` entries before their first row, to be updated in place.

    Args:
        prior: its batch broadcasts to `batch_shape`.
        batch_shape: tasks, or tasks and arms.

    Raises:
        ValueError: it does not.
    """
    if isinstance(prior, InPlace):
        return prior.online(batch_shape)
    if isinstance(prior, Summed):
        return OnlineStatistics(prior, batch_shape)
    return OnlineRows(prior, batch_shape)
