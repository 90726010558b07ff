"""What an object is and learned from, in at most ten lines: its `repr`, and the same as a table for notebooks."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Described", "listed", "plural", "unusual"]

MAX_LINES, WIDTH = 10, 120
MAX_NUMBERS = 6  # of a tensor that is shown in full
MAX_NAMES = 6

Rows = Mapping[str, Any]


class Described:
    """Mixin of objects whose `repr` is a title and a line for each part: of dataclasses, their fields but for defaults.

    A class says more of itself by `_title` and `_parts`.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" not in vars(cls):
            cls.__repr__ = _text  # type: ignore[method-assign, assignment]  # else `dataclass` would write one

    def _title(self) -> str:
        """What it is, in part of one line, after the name of its class."""
        return _default_title(self)

    def _parts(self) -> Rows:
        """What it consists of, by name, the most telling first."""
        return _fields(self) if dataclasses.is_dataclass(self) else {}

    def _repr_html_(self) -> str:
        title, *lines = (html.escape(line) for line in _lines(self))
        cells = (line.strip().partition("  ") for line in lines)
        rows = "".join(f"<tr><th>{name}</th><td>{text.strip()}</td></tr>" for name, _, text in cells)
        return f"<table><caption>{title}</caption>{rows}</table>"


def listed(names: Sequence[Any]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:MAX_NAMES])
    return shown + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def plural(number: int, noun: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _text(self: Described) -> str:
    try:
        return "\n".join(_lines(self))
    except Exception:  # a debugger or a traceback may ask while the object is being made
        return f"{type(self).__name__}, incomplete"


def _lines(value: Described) -> list[str]:
    parts = {name: text for name, part in value._parts().items() if (text := _short(part))}
    shown = list(parts.items())
    if len(shown) > MAX_LINES - 1:
        shown, left = shown[: MAX_LINES - 2], [name for name, _ in shown[MAX_LINES - 2 :]]
        shown.append(("and", listed(left)))
    width = max((len(name) for name, _ in shown), default=0)
    lines = [_headline(value), *(f"  {name:{width}}  {text}" for name, text in shown)]
    return [_cut(" ".join(line.split()) if not i else line.replace("\n", " ")) for i, line in enumerate(lines)]


def _headline(value: Described) -> str:
    name, title = type(value).__name__, value._title()
    return name + (title if title[:1] in (",", ":") or not title else f" {title}")


def _default_title(value: Any) -> str:
    words = []
    batch, event = (getattr(value, name, None) for name in ("batch_shape", "event_shape"))
    if batch:
        words.append(f"batch_shape {tuple(batch)}")
    if event:
        words.append(f"event_shape {tuple(event)}")
    rows = getattr(value, "rows", None) or getattr(value, "data", None)
    if getattr(rows, "count", None) is not None and isinstance(rows, Described):
        words.append(f"given {_number_of_rows(rows)}")
    if (learned := getattr(value, "learned_from", None)) is not None:
        words.append(f"learned from {plural(learned.tasks, 'task')}, {plural(learned.rows, 'row')}")
    words += unusual(value)
    return f": {'; '.join(words)}" if words else ""


def unusual(value: Any) -> list[str]:
    """Dtype and device, where they are not float64 on the CPU."""
    dtype, device = getattr(value, "dtype", None), getattr(value, "device", None)
    words = [] if dtype in (None, torch.float64) else [str(dtype).removeprefix("torch.")]
    return words if device in (None, torch.device("cpu")) else [*words, f"on {device}"]


def _number_of_rows(rows: Any) -> str:
    return "rows" if rows.device.type == "meta" else plural(int(rows.count.sum()), "row")


def _fields(value: Any) -> dict[str, Any]:
    """The fields that say something: not None, and not as they are by default."""
    found = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if part is None or field.name == "learned_from" or _is_default(part, field.default):
            continue
        found[field.name] = part
    return found


def _is_default(value: Any, default: Any) -> bool:
    if default is dataclasses.MISSING:
        return False
    if isinstance(value, Tensor) and isinstance(default, Tensor):
        return value.numel() == default.numel() == 1 and not value.is_meta and value.item() == default.item()
    return value is default or (isinstance(value, int | float | str) and value == default)


def _short(value: Any) -> str:
    """One value in part of a line."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Described):
        return _headline(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return listed(list(value)) if value else "none"
    if isinstance(value, tuple | list):
        return listed([_cut(_short(item), 30) for item in value]) if value else "none"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, str | int | bool | type(None)):
        return str(value)
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return _cut(" ".join(str(value).split()), 60)


def _tensor(value: Tensor) -> str:
    shape = str(tuple(value.shape))
    if value.is_meta or not value.numel():
        return shape
    if value.numel() <= MAX_NUMBERS:
        return _numbers(value.tolist())
    if value.dtype == torch.bool:
        return f"{shape}, {int(value.sum())} true"
    if value.is_complex():
        return shape
    return f"{shape}, from {_numbers(value.min().item())} to {_numbers(value.max().item())}"


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _cut(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
