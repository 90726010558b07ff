"""Networks for tuning that learn in no time, where how well they learn does not matter."""

from dataclasses import replace

import pytest

from bo.priors import networks

__all__ = ["learn_shortly"]


def learn_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps from simulated objectives, and three from past tasks."""
    for name in ("SIMULATED", "PAST"):
        monkeypatch.setattr(networks, name, replace(getattr(networks, name), num_steps=3))
