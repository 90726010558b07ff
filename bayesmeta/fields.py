"""What every family shares as a frozen dataclass of tensors: moving it, and taking it apart for saving."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from bayesmeta.describe import Described
from bayesmeta.doors import first_tensor, guard
from bayesmeta.named_fields import named_fields, with_fields
from bayesmeta.numerics.linalg import rounded

__all__ = ["LearnedFrom", "TensorFields", "same"]

# a bound TypeVar rather than typing.Self, which beartype cannot check inside undecorated classes
T = TypeVar("T", bound="TensorFields")


class TensorFields(Described):
    """Mixin of frozen dataclasses whose fields are tensors, numbers, strings, None, or such dataclasses again.

    Its public methods check what they are given, see `bayesmeta.doors`.
    """

    gains_from_float64: ClassVar[bool] = True  # whether answers are more exact there than in float32

    _matrices: ClassVar[tuple[str, ...]] = ()  # fields that are positive definite, in any dtype

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        guard(cls)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, for copies and other processes: what was computed from them is computed again."""
        return named_fields(self)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the numbers in it."""
        return self._first_tensor("dtype").dtype

    @property
    def device(self) -> torch.device:
        """Device of the numbers in it."""
        return self._first_tensor("device").device

    def _first_tensor(self, what: str) -> Tensor:
        found = first_tensor(self)
        if found is None:
            raise AttributeError(f"this {type(self).__name__} holds no tensors, and so has no {what}")
        return found

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """The same object with every floating-point tensor moved as by `Tensor.to`."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: moved(item) for key, item in value.items()}
            is_float = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(*args, **kwargs) if is_float or isinstance(value, TensorFields) else value

        fields = {name: moved(value) for name, value in named_fields(self).items()}
        if any(isinstance(value, Tensor) and value.is_meta for value in fields.values()):
            return self._replace(**fields)  # there are no numbers to check
        for name in self._matrices:
            matrix = getattr(self, name).to(fields[name].device)
            fields[name] = rounded(matrix, fields[name].dtype)
        return type(self)(**fields)

    def equals(self, other: Any, *, rtol: float = 1e-6, atol: float = 1e-12) -> bool:
        """Whether `other` is of the same class and shapes, and its numbers differ by no more than atol + rtol |number|.

        Objects inside are compared in the same way. What something was learned from, its dtype and its device do not
        count, and nor do padded rows.

        Args:
            rtol: relative to the numbers of `other`.
            atol: in their units; for numbers that are zero but for rounding.
        """
        if type(other) is not type(self):
            return False
        return same(self._compared(), other._compared(), rtol, atol)

    def _compared(self) -> dict[str, Any]:
        """What `equals` compares, by name."""
        return {name: value for name, value in named_fields(self).items() if name != "learned_from"}

    def expand(self: T, batch_shape: Sequence[int]) -> T:
        """The same for every entry of a larger batch, without copies.

        Raises:
            ValueError: `batch_shape` is not one that the batch broadcasts to.
        """
        ndim, batch = len(self._batch()), tuple(batch_shape)
        try:
            torch.broadcast_shapes(self._batch(), batch)
            return self._each_tensor(
                lambda value: value.expand((*batch, *value.shape[ndim:])), lambda nested: nested.expand(batch)
            )
        except RuntimeError:
            raise ValueError(f"batch_shape {tuple(self._batch())} does not broadcast to {batch}") from None

    def __getitem__(self: T, index: Any) -> T:
        """Some entries of the batch: whole numbers, slices, or tensors of them, one per axis from the first on."""
        if not self._batch():
            raise IndexError(f"this {type(self).__name__} has no batch to index")
        return self._each_tensor(lambda value: value[index], lambda nested: nested[index])

    def _batch(self) -> torch.Size:
        return self.batch_shape  # type: ignore[attr-defined]

    def _each_tensor(
        self: T, change: Callable[[Tensor], Tensor], change_nested: "Callable[[Any], Any] | None" = None
    ) -> T:
        """The tensors changed, and objects inside that have a batch, which is the same one."""
        changed: dict[str, Any] = {}
        for name, value in named_fields(self).items():
            if isinstance(value, Tensor):
                changed[name] = change(value)
            elif change_nested is not None and getattr(value, "batch_shape", None):
                changed[name] = change_nested(value)
        return self._replace(**changed)

    def _replace(self: T, **changes: Any) -> T:
        """`dataclasses.replace` for the results of arithmetic, which need no validation."""
        return with_fields(self, **changes)

    def _spread(self, batch_shape: Sequence[int], like: Tensor, *names: str) -> None:
        """For `__post_init__`: numbers, and tensors of a smaller batch, become tensors over `batch_shape`."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        for name in names:
            value = torch.as_tensor(getattr(self, name), dtype=dtype, device=like.device)
            object.__setattr__(self, name, value.expand(tuple(batch_shape)))

    def state_dict(self) -> dict[str, Any]:
        """The fields by name: tensors, numbers, strings, None, or nested objects. `from_state` is the inverse."""
        return named_fields(self)

    @classmethod
    def from_state(cls: type[T], state: dict[str, Any]) -> T:
        """Build the object from what `state_dict` returned; the constructor validates it."""
        return cls(**state)


def same(a: Any, b: Any, rtol: float, atol: float) -> bool:
    """Whether two values agree to a tolerance: tensors, numbers, `TensorFields`, and dicts and lists of them."""
    if isinstance(a, TensorFields):
        return a.equals(b, rtol=rtol, atol=atol)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and _same_numbers(a, b, rtol, atol)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key], rtol, atol) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float | int):
        return a == b or abs(a - b) <= atol + rtol * abs(b)
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return same(vars(a), vars(b), rtol, atol)
    return bool(a == b) if not isinstance(a, Tensor) and not isinstance(b, Tensor) else False


def _same_numbers(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    if a.is_meta or b.is_meta:  # where there are no numbers, shapes are all there is
        return a.is_meta and b.is_meta
    if a.is_floating_point() and b.is_floating_point():
        return torch.allclose(a.detach().cpu().double(), b.detach().cpu().double(), rtol, atol, equal_nan=True)
    return torch.equal(a.cpu(), b.cpu())


@dataclasses.dataclass(frozen=True)
class LearnedFrom(TensorFields):
    """How much a learned prior rests on: tasks that had rows, and their rows."""

    tasks: int
    rows: int

    @classmethod
    def counts(cls, count: Tensor) -> "LearnedFrom":
        """Counts of tasks and rows, from the rows per task."""
        return cls(int((count > 0).sum()), round(float(count.sum())))
