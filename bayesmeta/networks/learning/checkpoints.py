"""Files in which a search writes down where it stands: safetensors, whole or not at all, and safe to open."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from bayesmeta.io import write_whole

__all__ = ["Checkpoint", "Number", "read_checkpoint", "read_numbers", "write_checkpoint"]

KEY = "bayesmeta checkpoint"
Number = int | float


class Checkpoint:
    """A file in which a search writes down where it stands, and from which it goes on.

    Args:
        path: of the file, which is there once something was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, Number]] | None:
        """What was written, None if there is nothing to go on from; see `read_checkpoint`."""
        return read_checkpoint(self.path, shapes) if self.path.exists() else None

    def write(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> None:
        """Write tensors and numbers, by name."""
        write_checkpoint(self.path, tensors, numbers)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> None:
    """Write tensors and numbers, by name."""
    whole = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, {KEY: json.dumps(dict(numbers))}))


def read_checkpoint(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, Number]]:
    """What `write_checkpoint` wrote.

    Args:
        shapes: of tensors that have to be there.

    Raises:
        ValueError: the file is no checkpoint, cut short, or of a network of other sizes.
    """
    numbers = read_numbers(path)
    tensors = safetensors.torch.load(path.read_bytes())
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(
                f"{path} is a checkpoint of another network: {name} has shape {shape} here and {found} there. Name "
                "another file, or delete it to begin anew"
            )
    return tensors, numbers


def read_numbers(path: Path) -> dict[str, Number]:
    """The numbers that `write_checkpoint` wrote, without the tensors.

    Raises:
        ValueError: the file is no checkpoint, or cut short.
    """
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return dict(json.loads(file.metadata()[KEY]))
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint, or is cut short ({error}). Delete it to begin anew") from None
