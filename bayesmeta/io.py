"""One file per prior: safetensors, with the structure of the object and a checksum in a JSON header.

The file holds tensors by dotted name, and under the metadata key `bayesmeta` a JSON object: `format`, `family`,
`learned_from`, versions, `prior` (the nested structure, in which a tensor is a name) and `checksum` over all of it.

Opening a file runs no code from it and imports nothing that it names. A class can be built only if an installed package
lists it in the entry points `bayesmeta.families`, under its own name:

    [project.entry-points."bayesmeta.families"]
    LinearGaussian = "bayesmeta.regression.linear:LinearGaussian"
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import os
import secrets
import typing
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from jaxtyping import jaxtyped
from torch import Tensor

from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.named_fields import named_fields

__all__ = ["family_of", "folder", "load", "load_parts", "read_header", "require_place", "save", "write_whole"]

FORMAT = 1
GROUP = "bayesmeta.families"
KEY = "bayesmeta"


def save(prior: TensorFields, path: str | Path) -> None:
    """Write `prior` to `path` as one safetensors file; the same prior gives the same bytes.

    The file appears whole or not at all: whatever stood at `path` stays until the new file is complete on disk.

    Raises:
        TypeError: the prior, or something in it, is of a kind that cannot be saved; the message names the field.
        FileNotFoundError: the folder does not exist.
        ValueError: `path` is a directory, a device or anything else that is no regular file.
    """
    if not isinstance(prior, TensorFields):
        raise TypeError(f"save needs a prior, a dataclass with TensorFields; got {type(prior).__name__}")
    tensors: dict[str, Tensor] = {}
    learned_from = getattr(prior, "learned_from", None)
    loaded_by = getattr(prior, "loaded_by", None)  # of a family part of which is code, which no file holds
    header = {
        "format": FORMAT,
        "family": type(prior).__name__,
        "learned_from": dataclasses.asdict(learned_from) if isinstance(learned_from, LearnedFrom) else None,
        "versions": {"bayesmeta": version("bayesmeta"), "torch": str(torch.__version__)},
        "prior": _encode(prior if loaded_by is None else prior.state_dict(), "", tensors),
    }
    if loaded_by is not None:
        header["loaded_by"] = loaded_by
    header["checksum"] = _checksum(header, tensors)
    write_whole(path, safetensors.torch.save(tensors, {KEY: _canonical(header)}))


def load(path: str | Path) -> Any:
    """The prior that `save` wrote to `path`, on the CPU, in the dtypes it had.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not ours, damaged, newer than this version, or holds a family that no installed package
            registers; the message says which.
    """
    path = _existing(path)
    try:
        header, tensors = _parse(path.read_bytes())
        if "loaded_by" in header:
            raise ValueError(f"it holds all but a model, which is code: load it by {header['loaded_by']}")
        prior = _decode(header["prior"], tensors)
        if not isinstance(prior, TensorFields):
            raise ValueError(f"its outermost object is no prior but a {type(prior).__name__}")
    except Exception as error:  # a constructor may fail in any way on hostile content
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"cannot load {path}: {kind}{error}") from error
    return prior


def load_parts(path: str | Path, family: str) -> dict[str, Any]:
    """What `state_dict` of a prior of `family` returned, part of which is code that the caller has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not ours, damaged, newer than this version, or of another family.
    """
    path = _existing(path)
    try:
        header, tensors = _parse(path.read_bytes())
        if header.get("family") != family or "loaded_by" not in header:
            raise ValueError(f"it holds a {_short(header.get('family'))}: load it by bayesmeta.load(path)")
        parts = _decode(header["prior"], tensors)
    except ValueError as error:
        raise ValueError(f"cannot load {path}: {error}") from error
    return parts


def read_header(path: str | Path) -> dict[str, Any]:
    """What the file at `path` says of itself, checked as by `load` but with no prior built."""
    path = _existing(path)
    try:
        return _parse(path.read_bytes())[0]
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no prior at {path}: the file does not exist. bayesmeta.save writes one")
    if not path.is_file():  # reading a device would never end
        raise ValueError(f"cannot load {path}: it is {'a directory' if path.is_dir() else 'not a regular file'}")
    return path


def _parse(raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file's bytes, whole and undamaged."""
    if raw[8:9] != b"{":
        raise ValueError("it is not a safetensors file, or it is cut short")
    try:
        tensors = safetensors.torch.load(raw)  # checks every offset against the size of the file
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})
    except Exception as error:  # SafetensorError, and KeyError or RuntimeError for tensors that torch cannot hold
        raise ValueError(f"it is cut short or damaged ({_short(error)}). Copy it again or save it again") from None
    if KEY not in metadata:
        raise ValueError("it is a safetensors file, but not one that bayesmeta.save wrote")
    damaged = "it is damaged. Copy it again or save it again"
    try:
        header = json.loads(metadata[KEY])
        checksum, version = header.pop("checksum"), header["format"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError(damaged) from None
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(
            f"its format is {version}, and this version of bayesmeta reads up to {FORMAT}. Upgrade bayesmeta"
        )
    if version != FORMAT or checksum != _checksum(header, tensors):
        raise ValueError(f"its checksum differs from its content: {damaged}")
    for name, tensor in tensors.items():
        # a tensor without elements takes no bytes whatever its other axes claim, and a constructor may allocate by them
        if math.prod(n for n in tensor.shape if n) > max(len(raw), 2**20):
            raise ValueError(f"tensor {name!r} claims the shape {tuple(tensor.shape)}, beyond the size of the file")
    return header, tensors


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors put into `tensors`; `name` is the dotted path to it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        while name in tensors:  # keys with dots can meet: {"a.b": ..., "a": {"b": ...}}
            name += "_"
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name}
    inside = f"{name}." if name else ""
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{inside}{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        # pairs, because order is content and keys need not be strings
        keys = [_encode(key, name, {}) for key in value]
        return {"dict": [[key, _encode(value[k], f"{inside}{k}", tensors)] for key, k in zip(keys, value, strict=True)]}
    if isinstance(value, TensorFields):
        entry = _registered(type(value).__name__)
        if entry is None or entry.load() is not type(value):
            raise TypeError(
                f"{type(value).__name__} cannot be saved: no installed package lists it in the entry points {GROUP!r}. "
                "Add it there in pyproject.toml and install the package again"
            )
        state = {key: _encode(item, f"{inside}{key}", tensors) for key, item in value.state_dict().items()}
        return {"object": type(value).__name__, "package": entry.dist.name if entry.dist else None, "state": state}
    raise TypeError(
        f"{name} cannot be saved: it is a {type(value).__name__}. Fields of a prior are tensors, numbers, strings, "
        "None, lists, tuples and dicts of these, or TensorFields; state_dict and from_state can translate"
    )


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_encode`."""
    match node:
        case None | bool() | int() | float() | str():
            return node
        case list():
            return [_decode(item, tensors) for item in node]
        case {"float": str(text)}:
            return float(text)
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"tuple": list(items)}:
            return tuple(_decode(item, tensors) for item in items)
        case {"dict": list(pairs)}:
            return {_decode(key, tensors): _decode(value, tensors) for key, value in pairs}
        case {"object": str(name), "state": dict(state)}:
            entry = _registered(name)
            if entry is None:
                package = node.get("package")
                remedy = f"Install {package!r}, which registered it" if package else "Install the package that does"
                raise ValueError(f"no installed package registers the family {name!r} in {GROUP!r}. {remedy}")
            built = entry.load().from_state({key: _decode(value, tensors) for key, value in state.items()})
            _require_declared_types(built)
            return built
        case _:
            raise ValueError(f"its header holds what this version does not know: {_short(node)}")


def _require_declared_types(built: TensorFields) -> None:
    """Fields are of the types, and tensors of the shapes, that their annotations declare.

    Constructors check values and trust types, which a type checker sees to; nothing sees to the types in a file.
    """
    hints = typing.get_type_hints(type(built))
    with jaxtyped("context"):  # one letter is one size across the fields
        for name, value in named_fields(built).items():
            hint = hints[name]
            try:
                fits = isinstance(value, hint) or (type(value) is int and isinstance(float(value), hint))
            except TypeError:  # list[int] and other types that isinstance does not know
                continue
            if not fits:
                got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else _short(value)
                declared = hint.__name__ if isinstance(hint, type) else hint
                raise ValueError(f"{name} of {type(built).__name__} must be {declared}; got {got}")


def family_of(name: str) -> Any:
    """The class that is registered under its name, such as that of a family.

    Raises:
        ValueError: no installed package registers one.
    """
    entry = _registered(name)
    if entry is None:
        near = difflib.get_close_matches(name, entry_points(group=GROUP).names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no installed package registers a family {name!r}{hint}")
    return entry.load()


@cache
def _registered(name: str) -> EntryPoint | None:
    """The entry point of a family, None where no installed package lists it."""
    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if len(entries) > 1:
        raise ValueError(f"two installed packages register a family {name!r} in {GROUP!r}: {sorted(entries)}")
    return next(iter(entries.values()), None)


def _canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes. It guards against accidents only."""
    digest = hashlib.sha256(_canonical(header).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_place(path: str | Path) -> Path:
    """Where a file of this name would be written, links followed.

    Raises:
        FileNotFoundError: the folder does not exist.
        PermissionError: files cannot be made in it.
        ValueError: `path` is a directory, or anything else that is no regular file, such as a device or a pipe.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise ValueError(f"cannot save to {path}: it is a directory. Name a file in it, such as prior.safetensors")
    if path.exists() and not path.is_file():  # a new file would take the place of the device, for all who use it
        raise ValueError(f"cannot save to {path}: it is not a regular file but a {_kind(path)}. Name another file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save to {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot save to {path}: the folder {path.parent} cannot be written to. Name another")
    return path


def _kind(path: Path) -> str:
    kinds = {"pipe": path.is_fifo, "socket": path.is_socket, "block device": path.is_block_device}
    return next((kind for kind, is_it in kinds.items() if is_it()), "device")


def folder(path: Path) -> Path:
    """A folder to write files into, made if need be.

    Raises:
        NotADirectoryError: there is a file where it or a folder above it should be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"cannot write into {path}: there is a file. Name a folder, new or not") from None
    return path


def write_whole(path: str | Path, raw: bytes) -> None:
    """Write a file that is either absent, as it was, or whole, also if the process is killed or the power fails."""
    path = require_place(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _new_file(temporary) as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
            if not temporary.exists():
                # any directory will do for src_dir_fd: giving one is what makes Python follow the link to the open file
                here = os.open(path.parent, os.O_RDONLY)
                try:
                    os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=here)
                finally:
                    os.close(here)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_file(path: Path) -> BinaryIO:
    """A file to write: on Linux without a name, so that it vanishes with a process that is killed, else at `path`."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        # some file systems have no nameless files
        with contextlib.suppress(OSError):
            return open(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb")
    return open(path, "xb")
