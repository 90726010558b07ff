"""Checkpoints of learning: where a search stands, and, from past tasks, all else by which learning goes on.

From a stream that is the search alone. From past tasks two searches follow each other, which share one file: it has the
one that is going on, which one that is, the looks at held-out tasks that say when they end, and the state of the
generator before the first draw, by which the same tasks are held out again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.networks.learning.checkpoints import Checkpoint, Number, read_checkpoint, read_numbers
from bayesmeta.networks.learning.until_no_gain import Standing

__all__ = ["PastCheckpoint", "stream_checkpoint"]


def stream_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of learning from a stream.

    Raises:
        ValueError: the file is of learning from past tasks, or is no checkpoint.
    """
    if path.exists() and "run" in read_numbers(path):
        raise _other(path, "from past tasks, and this is from a stream")
    return Checkpoint(path)


class PastCheckpoint(Checkpoint):
    """A checkpoint of learning from past tasks.

    Args:
        path: of the file; if it is there, learning goes on from it.
        tasks: that are learned from.
        weights: of the network with which learning begins.
        how: it learns, dataclasses of numbers by what they are.
        generator: of all draws, none of which was made yet. It is set to where it was when learning began.

    Raises:
        ValueError: the file is of learning from a stream, from other tasks, or of any other learning, or is no
            checkpoint.
    """

    def __init__(
        self, path: Path, tasks: Data, weights: Mapping[str, Tensor], how: Mapping[str, Any], generator: Generator
    ) -> None:
        super().__init__(path)
        self.standing = Standing()
        self._is_of: dict[str, Number] = {
            "tasks": len(tasks),
            "rows": int(tasks.mask.sum()),
            "values": _fingerprint((tasks.x, tasks.y, tasks.mask)),
            "network": _fingerprint(value for _, value in sorted(weights.items())),
            **{f"{what}.{name}": value for what, part in how.items() for name, value in asdict(part).items()},
        }
        if path.exists():
            tensors, numbers = read_checkpoint(path, {})
            self._require(numbers)
            stood: dict[str, Any] = {name: numbers[name] for name in asdict(self.standing)}
            self.standing = Standing(**stood)
            generator.set_state(tensors["start"])
        self._start = generator.get_state()

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, Number]] | None:
        """What was written in the run that is going on, None if that has no look yet."""
        found = super().read(shapes)
        return found if found and found[1]["run"] == self.standing.run else None

    def write(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> None:
        super().write({**tensors, "start": self._start}, {**numbers, **asdict(self.standing), **self._is_of})

    def _require(self, numbers: Mapping[str, Number]) -> None:
        """Refuse a file that is of anything else, by its numbers."""
        if "run" not in numbers:
            raise _other(self.path, "from a stream, and this is from past tasks")
        for name, here in self._is_of.items():
            there = numbers.get(name)
            if there == here:
                continue
            if name in ("tasks", "rows"):
                raise _other(self.path, f"from {there} {name}, and these are {here}")
            if name == "values":
                raise _other(self.path, "from other tasks: these are as many, but have other values")
            if name == "network":
                raise _other(self.path, "that began with another network, by its sizes or its weights")
            raise _other(self.path, f"with {name} {there}, and here it is {here}")


def _other(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is a checkpoint of learning {what}. Name another file, or delete it to begin anew")


def _fingerprint(tensors: Iterable[Tensor]) -> int:
    """A number that is another one if any entry is."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest()[:6], "big")
