"""Every shape annotation of the three packages is checked while the tests run."""

from jaxtyping import install_import_hook

# must run before any of the packages is imported
install_import_hook(["bayesmeta", "bandits", "bo"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _global_stream_untouched():
    """The library draws from explicit generators: a test that moves the global stream has found a bug."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global random stream was used"


def pytest_collection_modifyitems(items):
    """Slow evidence last: what is broken in plain sight should show first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
