"""A store's directory of events, and processes that write them."""

import pytest
from metrics_kit import workers

from jitwarm.events import EventLog


@pytest.fixture
def events(tmp_path):
    """The directory of a store's events."""
    return tmp_path / "store" / "events"


@pytest.fixture
def start_worker(events):
    """Start a process that writes events."""
    with workers(events) as start:
        yield start


@pytest.fixture
def log(events):
    """This process's own event file."""
    made = EventLog("run", 0)
    made.keep_in(events)
    yield made
    made.close()
