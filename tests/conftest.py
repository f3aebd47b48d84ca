"""What every test may rely on."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import fastops

HAVE_TORCH = find_spec("torch") is not None

# Without PyTorch there is no second opinion to be had: these tests do not exist then, rather than being skipped.
collect_ignore_glob = [] if HAVE_TORCH else ["parity/*"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not HAVE_TORCH:
        left_out = [item for item in items if item.get_closest_marker("torch")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("torch")]


@pytest.fixture(autouse=True)
def _same_number_of_threads():
    """A test that changes the number of threads changes it for itself."""
    before = fastops.get_num_threads()
    yield
    if fastops.get_num_threads() != before:
        fastops.set_num_threads(before)
