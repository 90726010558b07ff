"""What every benchmark writes: figures, and the versions and hardware they were measured on."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Figure", "MissingPeerError", "environment", "write_json"]


class MissingPeerError(Exception):
    """A baseline is not installed."""


@dataclass(frozen=True)
class Figure:
    """One number, under a lower-case name such as `speed/niw_vs_loop`, and what it says."""

    name: str
    value: float
    meaning: str


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Date, versions and hardware; packages that are not installed are None."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "hardware": {"machine": platform.machine(), "processor": _processor(), "cores": os.cpu_count()},
    }


def write_json(out: Path, figures: Sequence[Figure], environment: dict[str, Any], **rest: Any) -> None:
    """`figures` as a flat object from name to number, beside whatever else the benchmark reports."""
    content = {"figures": {f.name: f.value for f in figures}, **rest, **environment}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
