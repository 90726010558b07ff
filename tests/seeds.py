"""The one place from which tests take seeds: `make test SEED=n` adds n to each.

A seed is a convenience and never a premise, so every test passes under every shift. `seed(3)` is a generator of torch
and `shifted(3)` the number for whatever else wants one: `seed=shifted(0)`, `np.random.default_rng(shifted(0))`.
`test_seeds.py` refuses any other way. `conftest.py` shifts what no test seeds.
"""

import os

from torch import Generator

__all__ = ["SHIFT", "seed", "shifted"]


def _shift() -> int:
    text = os.environ.get("SEED") or "0"
    if not text.isdecimal() or int(text) >= 2**31:
        raise ValueError(
            f"SEED shifts the seeds of the tests and must be a whole number from 0 to 2^31 - 1; got {text!r}"
        )
    return int(text)


SHIFT = _shift()


def shifted(number: int) -> int:
    """`number` plus the shift."""
    return number + SHIFT


def seed(number: int) -> Generator:
    """A generator on the CPU, seeded with the shifted `number`."""
    return Generator().manual_seed(shifted(number))
