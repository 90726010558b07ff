"""Folders of real data that sections read."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["NEED_DATA", "folder_of", "require_folders"]

FOLDERS = {"images": "omniglot", "hierarchical": "hierarchical"}
NEED_DATA = ("hierarchical",)  # sections that do not run without a folder


def require_folders(sections: Sequence[str], data: Path | None) -> None:
    """Look for what sections need before one of them runs.

    Raises:
        FileNotFoundError: a folder is not there.
    """
    for name in sections:
        if name in FOLDERS and (data is not None or name in NEED_DATA):
            folder_of(name, data)


def folder_of(section: str, data: Path | None) -> Path:
    """The folder of a section.

    Raises:
        FileNotFoundError: it is not there.
    """
    name = FOLDERS[section]
    if data is None or not (data / name).is_dir():
        where = "no folder was given" if data is None else f"{data} has none"
        raise FileNotFoundError(
            f"the section {section} needs a folder {name}/: {where}; give the folder that holds it by --data"
        )
    return data / name
