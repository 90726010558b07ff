"""Files in which a search writes down where it stands: safetensors, whole or not at all, and safe to open."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from bayesmeta.io import write_whole

__all__ = ["read_checkpoint", "write_checkpoint"]

KEY = "bayesmeta checkpoint"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, int]) -> None:
    """Write tensors and whole numbers, by name."""
    whole = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, {KEY: json.dumps(dict(numbers))}))


def read_checkpoint(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """What `write_checkpoint` wrote.

    Args:
        shapes: of tensors that have to be there.

    Raises:
        ValueError: the file is no checkpoint, cut short, or of a network of other sizes.
    """
    raw = path.read_bytes()
    try:
        tensors = safetensors.torch.load(raw)
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        numbers = {str(name): int(value) for name, value in json.loads(metadata[KEY]).items()}
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint, or is cut short ({error}). Delete it to begin anew") from None
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(
                f"{path} is a checkpoint of another network: {name} has shape {shape} here and {found} there. Name "
                "another file, or delete it to begin anew"
            )
    return tensors, numbers
