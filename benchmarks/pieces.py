"""Pieces of a long benchmark: each is computed once and written down, so that a run that was cut short goes on.

They lie in a folder beside the file of results: `x.json` has `x.pieces/`. Delete a piece to compute it again.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bayesmeta
from bayesmeta.io import write_whole
from bayesmeta.networks.learning.checkpoints import read_numbers

__all__ = ["Pieces"]

Numbers = dict[str, Any]


class Pieces:
    """Pieces of one file of results.

    Args:
        out: that file; pieces of another budget have other names.
        budget: its name.
    """

    def __init__(self, out: Path, budget: str) -> None:
        self.folder, self.budget = out.with_suffix(".pieces"), budget
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, kind: str) -> Path:
        """Of a file of a piece."""
        return self.folder / f"{self.budget}.{name.replace('/', '.')}.{kind}"

    def numbers(self, name: str, make: Callable[[], Numbers]) -> Numbers:
        """What `make` returns: computed, or read if it was before."""
        path = self.path(name, "json")
        if not path.exists():
            write_whole(path, json.dumps(make()).encode())
        return dict(json.loads(path.read_text()))

    def learned(self, name: str, num_steps: int, learn: Callable[[Path], Any]) -> tuple[Any, float]:
        """A prior that learns from a stream, and its CPU-minutes in all.

        Args:
            num_steps: of `learn`.
            learn: given a checkpoint, to go on from if it is there.
        """
        path, checkpoint = self.path(name, "safetensors"), self.path(name, "checkpoint")
        if not path.exists():
            before = read_numbers(checkpoint)["step"] if checkpoint.exists() else 0
            start = time.process_time()
            prior = learn(checkpoint)
            minutes = (time.process_time() - start) / 60.0
            # steps that were taken by a process that is gone took as long as these
            whole = minutes * num_steps / max(num_steps - before, 1)
            bayesmeta.save(prior, path)
            self.numbers(f"{name}.minutes", lambda: {"minutes": whole})
        return bayesmeta.load(path), float(self.numbers(f"{name}.minutes", dict)["minutes"])
