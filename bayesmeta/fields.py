"""What every family shares as a frozen dataclass of tensors: moving it, and taking it apart for saving."""

import dataclasses
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["LearnedFrom", "TensorFields"]

# a bound TypeVar rather than typing.Self, which beartype cannot check inside undecorated classes
T = TypeVar("T", bound="TensorFields")


class TensorFields:
    """Mixin of frozen dataclasses whose fields are tensors, numbers, strings, None, or such dataclasses again."""

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """The same object with every floating-point tensor moved as by `Tensor.to`."""

        def moved(value: Any) -> Any:
            is_float = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(*args, **kwargs) if is_float or isinstance(value, TensorFields) else value

        fields = {f.name: moved(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**fields)

    def state_dict(self) -> dict[str, Any]:
        """The fields by name: tensors, numbers, strings, None, or nested objects. `from_state` is the inverse."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_state(cls: type[T], state: dict[str, Any]) -> T:
        """Build the object from what `state_dict` returned; the constructor validates it."""
        return cls(**state)


@dataclasses.dataclass(frozen=True)
class LearnedFrom(TensorFields):
    """How much a learned prior rests on: tasks that had rows, and their rows."""

    tasks: int
    rows: int

    @classmethod
    def counts(cls, count: Tensor) -> "LearnedFrom":
        """From the rows per task."""
        return cls(int((count > 0).sum()), round(float(count.sum())))
