"""Keys built through executors of `concurrent.futures`, real ones: what comes back is checked, and what breaks loses no key.

What the keys do is in `tests/support/fault_kit.py`. Clusters are in `tests/integrations/test_clusters.py`.
"""

import base64
import copy
import dataclasses
import hashlib
import json
import os
import platform
import signal
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import fault_kit
import hosts_kit
import kits
import pytest
from fault_kit import notes, run
from kits import FourMembers, Key, Plugin
from processes import is_running, wait_until

from jitwarm import Target, WarmupConfig
from jitwarm.backends._triton.adapter import TritonBackend
from jitwarm.engine import hosts
from jitwarm.engine.executors import n_in_flight
from jitwarm.engine.jobs import Order, Origin, Reply
from jitwarm.engine.parcels import publish
from jitwarm.errors import HostError, UsageError
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings
from jitwarm.store import Store

HOST = platform.node()


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch):
    """The plugin is installed, for this process and for those that it starts; hosts have a place for temporary files."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    kits.install(tmp_path / "site", "faulty", fault_kit.PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def threads():
    """Hosts that are threads of this process; its own state ends with the test."""
    hosts._current = hosts._Host()
    with ThreadPoolExecutor(2) as executor:
        yield executor
    hosts._current._rest()


@pytest.fixture
def events():
    return []


def named(events, name):
    return [event for event in events if event["event"] == name]


def bake_example(root, executor, size, events=None):
    """The Triton kernel of the example, two keys. Returns its rows as (outcome, error).

    Each test has a size of its own: what one has loaded stays warm in this process.
    """
    asked = Asked(
        WarmupConfig(extra={"example": {"hidden_sizes": [size]}}), Settings(plugins=("example",), plan_timeout_s=300)
    )
    listeners = [] if events is None else [events.append]
    session = Session(asked, Target("cuda", "90"), root=root, listeners=listeners, executor=executor)
    report = session.run(session.plan("*rms_norm"))
    session.finish()
    return [(row.outcome, row.error) for row in report.rows]


# --- artifacts ---------------------------------------------------------------------------------------------------------


def test_artifacts_come_back_from_hosts_and_a_second_bake_loads_them(root, tmp_path, events):
    with hosts_kit.pool() as pool:
        assert bake_example(root, pool, 4096, events) == [("compiled", None)] * 2
    assert len(named(events, "built_on_host")) == 2
    assert {event["host"] for event in named(events, "built_on_host")} == {HOST}
    assert named(events, "child_start") == named(events, "compile") == []  # nothing was compiled here
    groups = list((root / "triton").glob("*/__grp__*.json"))
    assert len(groups) == 2
    for group in groups:
        for place in json.loads(group.read_text())["child_paths"].values():
            assert place.startswith(str(root))
            assert Path(place).exists()
    again = ["bake", "--out", root, "--target", "cuda:90", "--kernel", "*rms_norm*", "--json"]
    document = kits.json_of(
        kits.python("-m", "jitwarm", *again, "--set", "example.hidden_sizes=[4096]", JITWARM_PLAN_TIMEOUT_S=300)
    )
    assert document["outcomes"] == {"loaded": 2}
    assert document["n_compiles"] == 0
    wait_until(lambda: not list((tmp_path / "tmp").glob("jitwarm-host-*")), "hosts leave no files behind")


def test_a_host_of_another_toolchain_is_refused_with_words(root, events):
    with hosts_kit.pool(1, hosts_kit.has_variable, "TRITON_PTXAS_PATH", "/opt/ptxas") as pool:
        rows = bake_example(root, pool, 1024, events)
    assert [outcome for outcome, _ in rows] == ["failed"] * 2
    for _, error in rows:
        assert f"host {HOST} has TRITON_PTXAS_PATH /opt/ptxas, here none" in error
        assert "install the same versions" in error
    assert named(events, "build_start")
    assert named(events, "child_start") == named(events, "compile") == []  # refused is not built here instead
    assert not list((root / "manifest").iterdir())


def test_versions_that_differ_are_named_and_no_others():
    ours = Origin("triton 3.9.0, ptxas /opt/a b; tilelang 0.1.15", "a")
    theirs = Origin("triton 3.8.0, ptxas /opt/a b; cpu x86-64-v3", "a")
    assert ours.difference(theirs) == [
        ("triton", "3.9.0", "3.8.0"),
        ("tilelang", "0.1.15", "none"),
        ("cpu", "none", "x86-64-v3"),
    ]


@pytest.mark.soak
def test_one_process_of_an_executor_serves_one_target_after_another(sent):
    """A bake for each target meets the same hosts, and Triton keeps the first target that it is given."""
    targets = ("cuda:90", "cuda:80", "cuda:90")
    orders = [Order.from_json(sent[0]) for _ in targets]
    with hosts_kit.pool(1) as pool:
        for order, target in zip(orders, targets, strict=True):
            job = dataclasses.replace(order.job, target=target)
            parts = (job.kernel, job.key, target, job.origin.toolchain, job.origin.source)
            asked = dataclasses.replace(order, job=job, fingerprint=Store.fingerprint(*parts))
            reply = json.loads(pool.submit(hosts.run, json.dumps(asked.to_json())).result())
            assert (reply["answer"]["status"], reply["answer"]["error"]) == ("built", "")
            assert reply["entry"]["target"] == target


# --- what a host sends is a stranger's ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """(order, reply) of one real key, built by `hosts.run` in a process of its own."""
    executor = Recording()
    before = dict(os.environ)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        bake_example(tmp_path_factory.mktemp("sent") / "store", executor, 2048)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return executor.seen[0]


class Recording(Executor):
    """Keeps what goes to and fro."""

    def __init__(self):
        self.seen = []

    def submit(self, function, order):
        with hosts_kit.pool(1) as pool:
            text = pool.submit(function, order).result()
        self.seen.append((json.loads(order), json.loads(text)))
        future = Future()
        future.set_result(text)
        return future


def packed(content):
    return {"sha256": hashlib.sha256(content).hexdigest(), "data": base64.b64encode(content).decode()}


def cubin(reply):
    return next(name for name in reply["files"] if name.endswith(".cubin"))


def put(reply, name, content=b"planted", *, listed=True):
    """Send one file more, which the manifest lists."""
    reply["files"][name] = packed(content)
    if listed:
        reply["entry"]["files"][name] = packed(content)["sha256"]


def drop(reply):
    del reply["files"][cubin(reply)]


def damage(reply):
    reply["files"][cubin(reply)]["data"] = packed(b"damaged")["data"]


def cut(reply):
    reply["files"][cubin(reply)]["data"] = reply["files"][cubin(reply)]["data"][:-3]


def exchange(reply):
    reply["files"][cubin(reply)] = packed(b"another binary")


def of_another_key(reply):
    reply["entry"]["key"] = "{}"


def of_another_target(reply):
    reply["entry"]["target"] = "cuda:100"


def breaks_group(reply):
    name = next(name for name in reply["files"] if "__grp__" in name)
    reply["files"][name] = packed(b'{"child_paths":')


TAMPERED = {
    "a file is missing": (drop, "is missing"),
    "a file is damaged": (damage, "is damaged"),
    "a file is cut": (cut, "is damaged"),
    "another file under its name": (exchange, "is not what its manifest says"),
    "the entry of another key": (of_another_key, "not the one that was asked for"),
    "the entry of another target": (of_another_target, "not the one that was asked for"),
    "a group file is damaged": (breaks_group, "__grp__"),
    "a file above the store": (lambda reply: put(reply, "triton/a/../../../planted"), "no place"),
    "an absolute path": (lambda reply: put(reply, "/proc/a/planted"), "no place"),
    "a file of the store itself": (lambda reply: put(reply, "manifest/a/planted"), "no place"),
    "a file of another key": (lambda reply: put(reply, "objects/other/planted.o"), "no place"),
    "a file without a directory of its own": (lambda reply: put(reply, "triton/planted"), "no place"),
    "a file in another entry": (lambda reply: put(reply, "triton/other/planted", listed=False), "no place"),
    "no entry": (lambda reply: reply.update(entry={}), "cannot be used"),
    "files that are none": (lambda reply: reply.update(files=["triton/a/b"]), "cannot be used"),
}


def publish_in(root, order, reply):
    order, reply = Order.from_json(order), Reply.from_json(reply)
    publish(Store(root), reply, order.job, order.fingerprint, [TritonBackend()])


def test_what_a_host_really_sends_is_published(sent, root):
    publish_in(root, *sent)
    entry = Store(root).find(sent[0]["fingerprint"])
    assert Store(root).damaged(entry) == []
    assert len(list(root.rglob("__grp__*"))) == 1


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_damaged_or_planted_is_refused_and_nothing_is_written(sent, root, what):
    order, reply = copy.deepcopy(sent)
    tamper, words = TAMPERED[what]
    tamper(reply)
    with pytest.raises(HostError, match=words) as caught:
        publish_in(root, order, reply)
    assert HOST in str(caught.value)
    assert not [path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks"]
    assert not list(root.parent.glob("*planted*"))


class Damaging(Executor):
    """A line that changes every answer."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def submit(self, function, order):
        return self.inner.submit(lambda: self.change(function(order)))


@pytest.mark.parametrize("change", [lambda text: text[:-9], lambda _: "{}", lambda _: None, lambda _: "[1]"])
def test_an_answer_that_is_none_is_a_row_and_the_next_keys_are_asked_for(root, threads, events, change):
    rows = run(root, "builds", "builds too", executor=Damaging(threads, change), listeners=[events.append])
    assert [outcome for outcome, _ in rows] == ["failed"] * 2
    assert all("a host sent what is no reply" in error for _, error in rows)
    assert named(events, "hosts_unavailable") == []


# --- one key's failure is one row --------------------------------------------------------------------------------------


def run_around(root, executor, what, **settings):
    """A run of the key between two that work. Returns its row's outcome and error; the others are fine."""
    before, row, after = run(root, "builds", what, "builds too", executor=executor, **settings)
    assert before == after == ("compiled", None)
    return row


@pytest.mark.parametrize(
    ("what", "outcome", "text"),
    [
        ("raises", "failed", "ValueError: tile does not divide"),
        ("is skipped", "skipped", "the autotuner would skip it"),
        ("is unresolved", "unresolved", "warm it elsewhere"),
    ],
)
def test_an_exception_on_a_host_is_an_answer_that_names_the_host(root, threads, what, outcome, text):
    found, error = run_around(root, threads, what)
    assert found == outcome
    assert text in error
    assert f"on: host {HOST}" in error
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize(
    ("what", "outcome", "n_tries", "text"),
    [
        ("segfaults", "failed", 2, "killed by SIGSEGV"),
        ("sleeps", "timed_out", 1, "the compiler was killed"),
    ],
)
def test_what_hangs_or_kills_its_compiler_on_a_host_is_quarantined_here(root, threads, what, outcome, n_tries, text):
    found, error = run_around(root, threads, what, key_timeout_s=15)
    assert found == outcome
    assert text in error
    assert f"at: host {HOST}" in error
    assert sum(noted["does"] == what for noted in notes()) == n_tries
    assert len(list((root / "quarantine").glob("*.json"))) == 1


def test_several_keys_run_at_once_in_one_process(root, threads):
    """Each key waits until it sees the other under way."""
    assert run(root, "meets another", "meets one", executor=threads) == [("compiled", None)] * 2


def test_nothing_is_sent_once_the_budget_has_ended(root, threads):
    ((outcome, error),) = run(root, "builds", executor=threads, time_budget_s=0)
    assert outcome == "skipped"
    assert "JITWARM_TIME_BUDGET_S" in error
    assert notes() == []


def test_a_key_that_outlasts_the_budget_is_not_waited_for(root, threads):
    ((outcome, error),) = run(root, "sleeps", executor=threads, time_budget_s=8)
    assert outcome == "skipped"
    assert "JITWARM_TIME_BUDGET_S" in error
    assert not (root / "quarantine").exists()


# --- a host is not like this one ---------------------------------------------------------------------------------------


def test_a_plugin_that_a_host_lacks_is_told_and_not_built_here(root, tmp_path, events):
    with hosts_kit.pool(1, hosts_kit.lacks, tmp_path / "site") as pool:
        ((outcome, error),) = run(root, "builds", executor=pool, listeners=[events.append])
    assert outcome == "failed"
    assert f"plugin faulty is not installed on host {HOST}" in error
    assert notes() == []


@pytest.mark.parametrize(
    ("source", "version", "text"),
    [
        (fault_kit.PLUGIN, "2.0", f"host {HOST} has another source of faulty"),
        ("raise ImportError('no libcudart')", "1.0", f"plugin faulty was refused on host {HOST}: cannot import faulty"),
        ("import jitwarm, kits\n@jitwarm.hookimpl\ndef jitwarm_backends(): return [kits.Workshop()]",
         "3.0", f"faulty 3.0 on host {HOST} has no faulty:kernel; here it is faulty 1.0"),
    ],
)  # fmt: skip
def test_a_plugin_that_differs_on_a_host_is_told_and_not_built_here(root, tmp_path, source, version, text):
    kits.install(tmp_path / "other", "faulty", source, version=version)
    with hosts_kit.pool(1, hosts_kit.has_instead, tmp_path / "site", tmp_path / "other") as pool:
        ((outcome, error),) = run(root, "builds", executor=pool)
    assert outcome == "failed"
    assert text in error
    assert notes() == []


OWN = """
from fault_kit import Does, Faulty, jitwarm_backends
from jitwarm import hookimpl

class Own(Faulty):
    def get_warmup_keys(self, config):
        return [Does("builds")]

@hookimpl
def jitwarm_kernels():
    return [Own()]
"""


def test_one_line_that_differs_in_a_plugins_source_is_another_source(root, tmp_path):
    kits.install(tmp_path / "site", "edited", OWN)
    kits.install(tmp_path / "other", "edited", f"{OWN}\n# one line more")
    with hosts_kit.pool(1, hosts_kit.has_instead, tmp_path / "site", tmp_path / "other") as pool:
        session = Session(Asked(settings=Settings(plugins=("edited",))), Target("cuda", "90"), root=root, executor=pool)
        (row,) = session.run(session.plan()).rows
        session.finish()
    assert row.outcome == "failed"
    assert f"host {HOST} has another source of edited, or another version of what it requires" in row.error
    assert notes() == []


def test_a_kernel_that_is_known_here_alone_is_sent_to_no_host(root, threads, events):
    session = fault_kit.session(root, "builds", listeners=[events.append], executor=threads)
    kernel = FourMembers(Key(1), backend="workshop")
    plugin = Plugin(kernel)
    plugin.jitwarm_backends = None
    session.registry.add("mine", plugin, "mine 1.0")
    report = session.run(session.plan())
    assert {row.outcome for row in report.rows} == {"compiled"}
    assert kernel.built == [Key(1)]
    assert [event["kernel"] for event in named(events, "built_on_host")] == ["faulty:kernel"]


def test_settings_that_keep_hosts_from_being_used_are_refused(root, threads):
    for settings in ({"isolate": False}, {"manage_caches": False}):
        with pytest.raises(UsageError, match="cannot be built on hosts while"):
            fault_kit.session(root, "builds", executor=threads, **settings)


# --- the executor breaks -----------------------------------------------------------------------------------------------

FIVE = ("builds", "builds too", "prints megabytes", "raises", "returns")
AS_EVER = ["compiled", "compiled", "compiled", "failed", "loaded"]


def test_a_pool_that_breaks_in_the_middle_loses_no_key(root, events):
    with hosts_kit.pool(2) as pool:
        victims = []

        def kill_one(event):
            events.append(event)
            if event["event"] == "built_on_host" and not victims:
                victims.append(next(iter(pool._processes)))
                os.kill(victims[0], signal.SIGKILL)

        rows = run(root, *FIVE, executor=pool, listeners=[kill_one])
        # What a host had built and could not send any more is only found here.
        assert [outcome.replace("loaded", "compiled") for outcome, _ in rows] == [
            *["compiled"] * 3,
            "failed",
            "compiled",
        ]
        (told,) = named(events, "hosts_unavailable")
        assert "BrokenProcessPool" in told["error"]
        assert 1 <= len(named(events, "built_on_host")) < len(FIVE)
        assert named(events, "child_start")
        assert not is_running(victims[0])


def test_an_executor_that_was_shut_down_is_told_once_and_keys_are_built_here(root, events):
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    assert [outcome for outcome, _ in run(root, *FIVE, executor=pool, listeners=[events.append])] == AS_EVER
    assert len(named(events, "hosts_unavailable")) == 1


def test_a_host_on_which_nothing_can_be_started_is_given_up_after_some_keys(root, events):
    with hosts_kit.pool(1, hosts_kit.lacks_processes) as pool:
        rows = run(root, *FIVE, executor=pool, listeners=[events.append])
    assert [outcome for outcome, _ in rows] == AS_EVER
    assert len(named(events, "host_failed")) == 3
    (told,) = named(events, "hosts_unavailable")
    assert "no compile process can be started" in told["error"]


def test_an_answer_that_never_comes_ends_the_wait(root, events, monkeypatch):
    class Silent(Executor):
        def submit(self, *_):
            return Future()

    monkeypatch.setattr("jitwarm.engine.executors._QUEUE_S", 1 - 2 * 60)  # all but a second of what follows
    rows = run(root, "builds", executor=Silent(), listeners=[events.append], key_timeout_s=60, workers=1)
    assert rows == [("compiled", None)]
    (told,) = named(events, "hosts_unavailable")
    assert "no answer after" in told["error"]


# --- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "n"),
    [({"n_slots": 7}, 7), ({"_max_workers": 3}, 3), ({"n_slots": 4000}, 512), ({"n_slots": 0}, 5), ({}, 5)],
)
def test_as_many_keys_are_under_way_as_an_executor_has_slots(attributes, n):
    executor = type("Some", (Executor,), attributes)()
    assert n_in_flight(executor, 5) == n


def test_orders_and_replies_are_their_json(sent):
    for kind, record in zip((Order, Reply), sent, strict=True):
        assert kind.from_json(record).to_json() == record
    assert dataclasses.is_dataclass(Order.from_json(sent[0]).job.origin)
