"""Calls with a deadline: what comes back comes back unchanged, and what hangs is named and left behind."""

import contextvars
import sys
import threading
import time

import kits
import pytest
from kits import FourMembers, Key, Plugin

from jitwarm import Target, WarmupConfig, hookimpl
from jitwarm.deadlines import Deadline
from jitwarm.errors import PluginError, PluginTimeoutError, Skipped
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

LONG_S, SHORT_S = 60.0, 0.5  # what comes back has all the time it needs; what hangs hangs for ever
IMPORT_HANGS = """
import time
time.sleep(600)
"""
VARIABLE = contextvars.ContextVar("tests_deadline_variable")


@pytest.fixture(params=[None, LONG_S], ids=["without a deadline", "with a deadline"])
def deadline(request):
    return Deadline(request.param)


def sleeps():
    time.sleep(600)  # the line that is to be named


# --- one call ----------------------------------------------------------------------------------------------------------


def test_a_call_gets_its_arguments_and_gives_its_value(deadline):
    assert deadline.call("adding", lambda a, *, b: a + b, 1, b=2) == 3
    assert deadline.call("nothing", lambda: None) is None


@pytest.mark.parametrize("error", [ValueError("boom"), Skipped("not here"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_call_raises_is_raised_itself(deadline, error):
    def fails():
        raise error

    with pytest.raises(type(error)) as caught:
        deadline.call("failing", fails)
    assert caught.value is error


def test_a_call_sees_the_callers_context_variables(deadline):
    token = VARIABLE.set("mine")
    try:
        assert deadline.call("reading", VARIABLE.get) == "mine"
    finally:
        VARIABLE.reset(token)


def test_without_a_deadline_the_call_is_made_in_this_thread_and_nothing_is_prepared():
    prepared = []
    deadline = Deadline(None, lambda: prepared.append(threading.get_ident()))
    assert deadline.call("asking", threading.get_ident) == threading.get_ident()
    assert prepared == []


def test_each_thread_is_prepared_before_the_call():
    order = []
    deadline = Deadline(LONG_S, lambda: order.append(threading.get_ident()))
    deadline.call("asking", lambda: order.append(threading.get_ident()))
    prepared, called = order
    assert prepared == called != threading.get_ident()


def test_preparing_that_fails_fails_the_call():
    def prepare():
        raise OSError("no such GPU")

    with pytest.raises(OSError, match="no such GPU"):
        Deadline(LONG_S, prepare).call("never made", pytest.fail)


def test_a_call_that_hangs_is_named_with_the_lines_where_it_hangs():
    with pytest.raises(PluginTimeoutError) as caught:
        Deadline(SHORT_S).call("listing the kernels of acme", sleeps)
    assert caught.value.message == f"listing the kernels of acme took longer than {SHORT_S:g} s"
    assert "JITWARM_PLAN_TIMEOUT_S" in caught.value.hint
    assert caught.value.where.startswith(f"{__file__}:{sleeps.__code__.co_firstlineno + 1} (sleeps)")
    assert isinstance(caught.value, PluginError)


def test_a_call_that_hangs_does_not_keep_the_next_one_from_its_answer():
    deadline = Deadline(SHORT_S)
    with pytest.raises(PluginTimeoutError):
        deadline.call("hanging", sleeps)
    assert Deadline(LONG_S).call("answering", lambda: 1) == 1


def test_a_process_ends_although_a_call_of_it_hangs():
    source = """
import time
from jitwarm.deadlines import Deadline
from jitwarm.errors import PluginTimeoutError
try:
    Deadline(0.2).call("hanging", time.sleep, 600)
except PluginTimeoutError:
    print("left behind")
"""
    done = kits.python("-c", source)
    assert (done.returncode, done.stdout.strip()) == (0, "left behind")


# --- a server's session ------------------------------------------------------------------------------------------------


class Waits:
    """A hook that hangs until the test is over."""

    def __init__(self):
        self.over = threading.Event()

    @hookimpl
    def jitwarm_kernels(self):
        self.over.wait(600)
        return []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server's session with a short deadline, over given plugins and the installed ones that `admitted` names."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def make(plugins, admitted=()):
        settings = Settings(plugins=admitted, plan_timeout_s=SHORT_S, isolate=False)
        session = Session(Asked(WarmupConfig(), settings), Target("cuda", "90"), root=tmp_path / "store")
        for name, plugin in plugins.items():
            session.registry.add(name, plugin, f"{name} 1.0")
        return session

    return make


def of_workshop(name):
    return FourMembers(Key(1), name=name, backend="workshop")


def test_a_plugin_whose_import_hangs_is_refused_by_name_and_the_others_go_on(server, tmp_path, monkeypatch):
    kits.install(tmp_path / "site", "hanging_import", IMPORT_HANGS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    session = server({"fine": Plugin(of_workshop("quick"))}, admitted=("hanging_import",))
    report = session.run(session.plan())
    (refused,) = report.refused
    assert refused["plugin"] == "hanging_import"
    assert "importing hanging_import took longer than 0.5 s" in refused["reason"]
    assert f"{tmp_path / 'site' / 'hanging_import.py'}:3" in refused["reason"]
    assert [row.outcome for row in report.rows] == ["compiled"]
    sys.modules.pop("hanging_import", None)


def test_a_plugin_whose_kernels_hang_is_refused_by_name_and_the_others_go_on(server):
    hanging = Waits()
    session = server({"fine": Plugin(of_workshop("quick")), "hanging": hanging})
    report = session.run(session.plan())
    hanging.over.set()
    assert [refused["plugin"] for refused in report.refused] == ["hanging"]
    assert "listing the kernels of hanging took longer than 0.5 s" in report.refused[0]["reason"]
    assert "jitwarm_kernels" in report.refused[0]["reason"]
    assert [row.outcome for row in report.rows] == ["compiled"]


def test_a_kernel_whose_keys_hang_is_one_row_and_the_others_go_on(server):
    over = threading.Event()
    slow, quick = of_workshop("slow"), of_workshop("quick")
    slow.get_warmup_keys = lambda config: over.wait(600)
    session = server({"site": Plugin(slow, quick)})
    report = session.run(session.plan())
    over.set()
    (row,) = report.kernels["site:slow"].rows
    assert row.outcome == "failed"
    assert "listing the keys of site:slow took longer than 0.5 s" in row.error
    assert __file__ in row.error
    assert [row.outcome for row in report.kernels["site:quick"].rows] == ["compiled"]
