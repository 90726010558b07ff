"""What a file of results has from an earlier run of a benchmark, beside what is computed now."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Rows", "kept", "merged"]

Rows = list[dict[str, Any]]


def merged(before: Rows, now: Rows, key: Sequence[str]) -> Rows:
    """Rows of a file, of which those that were asked for now take the place of older ones.

    Args:
        key: columns that tell rows apart.
    """
    return list({tuple(row[name] for name in key): row for row in [*before, *now]}.values())


def kept(out: Path, budget: str) -> tuple[dict[str, dict[str, float]], dict[str, Rows]]:
    """Figures and tables by section, of those that a file has from a run of the same budget."""
    before = json.loads(out.read_text()) if out.exists() else {}
    if before.get("budget") != budget:
        return {}, {}
    return before.get("sections", {}), before["tables"]
