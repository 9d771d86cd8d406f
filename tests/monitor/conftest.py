"""A start over real compilers in this process, and then whatever a server would launch."""

import contextlib

import pytest

from jitwarm import Target, WarmupConfig, hookimpl
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

TARGET = Target("cuda", "90")


class Started:
    """A start that is over; its events, and what the monitor sees while it is armed."""

    def __init__(self, session, plan, events):
        self.session = session
        self.plan = plan
        self.events = events

    @contextlib.contextmanager
    def armed(self):
        with self.session.monitor(self.plan) as monitor:
            yield monitor

    def all(self, name):
        return [event for event in self.events if event["event"] == name]

    @property
    def compiles(self):
        return self.all("unexpected_compile")

    @property
    def outcomes(self):
        return self.session.report.outcomes


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Warm these kernels, as one plugin `kit`, and return the start. Keyword arguments are settings."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for variable in ("TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "CUTE_DSL_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    made = []

    def start(*kernels, learned=None, store="store", dtype="float32", **settings):
        events = []
        asked = Asked(WarmupConfig(dtype=dtype), Settings(plugins=(), isolate=False, **settings))
        if learned is not None:
            asked = Asked(asked.config, asked.settings, learned)
        session = Session(asked, TARGET, root=tmp_path / store, listeners=[events.append])
        session.registry.add("kit", _plugin(kernels))
        plan = session.plan()
        session.run(plan)
        made.append(session)
        return Started(session, plan, events)

    yield start
    for session in made:
        session.finish()


def _plugin(kernels):
    class Kit:
        @hookimpl
        def jitwarm_kernels(self):
            return list(kernels)

    return Kit()


@pytest.fixture
def attempt():
    """Launch something as far as it goes without a GPU. Returns what it raised."""

    def attempt(launch):
        try:
            launch()
        except Exception as exc:  # noqa: BLE001 - the test asserts what it is
            return exc
        return None

    return attempt
