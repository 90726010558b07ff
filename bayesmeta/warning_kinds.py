"""What the three packages warn of, a class for each, so that one can be filtered and the others still heard."""

import sys
import warnings

__all__ = ["BayesmetaWarning", "LimitWarning", "NotConvergedWarning", "NotFusedWarning", "PlacementWarning", "warn"]

# packages between a user's call and the warning
INSIDE = {"bayesmeta", "bandits", "bo", "torch", "contextlib", "functools"}


class BayesmetaWarning(UserWarning):
    """What every warning of bayesmeta, bandits and bo derives from."""


class LimitWarning(BayesmetaWarning):
    """A hyperparameter ended at the limit of its search: the tasks would have it larger, or smaller, still."""


class NotConvergedWarning(BayesmetaWarning):
    """Draws of some tasks did not pass their checks: they are not to be trusted."""


class PlacementWarning(BayesmetaWarning):
    """Rows lie far from zero, and the answer depends on it: by the model, or by the digits of its dtype."""


class NotFusedWarning(BayesmetaWarning, RuntimeWarning):
    """`torch.compile` failed: answers are the same, and come more slowly."""


def warn(text: str, kind: type[BayesmetaWarning]) -> None:
    """Warn at the line of the user's program that called the library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, kind, stacklevel=level)
