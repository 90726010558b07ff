"""One more axis of the batch of a distribution."""

from collections.abc import Callable

from torch.distributions import Distribution

__all__ = ["with_axis"]


def with_axis(distribution: Distribution) -> Distribution:
    """The same with one more axis of its batch, of size one, on the right.

    What is not made of parameters alone says by a method of this name how that is done.
    """
    own: Callable[[], Distribution] | None = getattr(distribution, "with_axis", None)
    if own is not None:
        return own()
    parameters = {name: getattr(distribution, name).unsqueeze(-1) for name in distribution.arg_constraints}
    return type(distribution)(**parameters, validate_args=False)
