"""What holds for every test: shapes are checked, and the only randomness is that of shifted seeds.

Shapes: the annotations of the three packages are checked while the tests run, see `shapes`.

Seeds: `make test SEED=n`, or SEED=n in the environment of pytest, adds n to every seed, see `seeds`. Hypothesis begins
from the shift, keeps no examples of other runs and has no deadline, so that equal shifts mean equal examples. What a
library takes from the system where it is given no seed comes from the shift too. The header names the shift and each
failure repeats it. Tests that draw get the marker `draws`, see `drawing`; `python -m tests.shifts` runs them under many
shifts.
"""

from tests import shapes

# must run before any of the packages is imported
shapes.install(["bayesmeta", "bandits", "bo"])

import os  # noqa: E402
import random  # noqa: E402
import secrets  # noqa: E402
import sys  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis.internal.conjecture import providers  # noqa: E402

from tests.drawing import draws  # noqa: E402
from tests.seeds import SHIFT, shifted  # noqa: E402

torch.set_num_threads(1)
os.environ["MPLBACKEND"] = "Agg"  # figures are drawn, and no window is opened

hypothesis.settings.register_profile(
    "shifted", database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shifted")
# it tries the constants of all modules imported so far, which depend on the tests that happened to run before
providers._get_local_constants = providers.Constants


@pytest.fixture(autouse=True)
def _shapes_checked_anew():
    """Whatever the tests before called, this one finds its own wrong shapes."""
    shapes.check_anew()


@pytest.fixture(autouse=True)
def _global_stream_untouched():
    """The library draws from explicit generators: a test that moves the global stream has found a bug."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global random stream was used"


@pytest.fixture(autouse=True)
def _system_shifted(monkeypatch):
    """What takes a seed from the system, in the library, NumPy or Optuna, gets the next of the shift."""
    system = random.Random(shifted(0))
    monkeypatch.setattr(secrets, "randbits", system.getrandbits)
    monkeypatch.setattr(np.random.bit_generator, "randbits", system.getrandbits)
    random.seed(shifted(0))
    np.random.seed(shifted(0))


@pytest.fixture(autouse=True)
def _no_figure_left():
    """Whoever draws may leave figures open, and the next test must not find them."""
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.fixture(autouse=True)
def _networks_learn_briefly(monkeypatch):
    """What a test does not say of how long networks learn is a few steps."""
    if learning := sys.modules.get("bayesmeta.neural_processes.learning"):
        monkeypatch.setattr(learning, "DEFAULT", learning.Schedule(num_steps=4, num_tasks=4))
    if amortised := sys.modules.get("bayesmeta.amortised.proposal"):
        monkeypatch.setattr(amortised, "DEFAULT", amortised.ProposalSchedule(num_steps=4, num_tasks=4))
    if denoising := sys.modules.get("bayesmeta.diffusion.denoising.learning"):
        monkeypatch.setattr(denoising, "DEFAULT", denoising.DiffusionSchedule(num_steps=4, num_draws=2, num_rounds=1))


def pytest_report_header():
    return f"seed shift {SHIFT}"


def pytest_collection_modifyitems(config, items):
    """Slow evidence last: what is broken in plain sight should show first.

    Several processes take it first: the one that came upon it at the end would leave the others without work.
    """
    is_worker = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None) != is_worker)
    for item in items:
        name = item.nodeid.split("::")[1].partition("[")[0] if "::" in item.nodeid else ""
        if hasattr(item, "module") and draws(item.module.__name__, name):
            item.add_marker("draws")
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            hypothesis.seed(SHIFT)(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        again = f"SEED={SHIFT} {os.path.relpath(sys.executable)} -m pytest {item.nodeid!r}"
        report.sections.append((f"seed shift {SHIFT}", f"to repeat it: {again}"))
    return report
