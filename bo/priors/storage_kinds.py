"""What a source of studies is, told without Optuna, which takes long to import: a URL, or the kind of a file."""

import json
from pathlib import Path

__all__ = ["JOURNAL", "SQLITE", "URL", "kind_of_storage"]

URL, SQLITE, JOURNAL = "URL", "SQLite", "journal"
MOST = 2**20  # bytes of a first line of a journal


def kind_of_storage(source: str | Path) -> str | None:
    """URL, SQLITE or JOURNAL; None where it is no storage of Optuna's, as a table is not."""
    if "://" in str(source):
        return URL
    path = Path(source)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.readline(MOST)
    if start.startswith(b"SQLite format 3\0"):
        return SQLITE
    return JOURNAL if _is_journal(start) else None


def _is_journal(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and "op_code" in entry
