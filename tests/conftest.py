"""The shape annotations of the three packages are checked while the tests run, see `shapes`."""

from tests import shapes

# must run before any of the packages is imported
shapes.install(["bayesmeta", "bandits", "bo"])

import os  # noqa: E402
import sys  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
os.environ["MPLBACKEND"] = "Agg"  # figures are drawn, and no window is opened


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
def _no_figure_left():
    """Whoever draws may leave figures open, and the next test must not find them."""
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


def pytest_collection_modifyitems(items):
    """Slow evidence last: what is broken in plain sight should show first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
