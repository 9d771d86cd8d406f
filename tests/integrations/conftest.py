"""Processes that write events, as workers do."""

import pytest
from metrics_kit import workers


@pytest.fixture
def start_worker(tmp_path):
    """Start one; its store is `store`."""
    with workers(tmp_path / "store" / "events") as start:
        yield start
