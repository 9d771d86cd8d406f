"""A plugin is imported once for all compile processes, by a process between their mother and them."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import fault_kit
import kits
import pytest
from fault_kit import Does, notes, run
from processes import is_running, wait_until

from jitwarm import Target, WarmupConfig
from jitwarm.contract.keys import encode_key
from jitwarm.engine.jobs import Job
from jitwarm.engine.workers import Workers
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

IMPORT = """
import os
with open(os.environ["FAULTY_NOTES"] + ".imports", "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
# Not in this process, where the tests go on.
ELSEWHERE = f"if os.getpid() != {os.getpid()}:"
STARTS_A_THREAD = f"""
import threading, time
{ELSEWHERE}
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
DIES_ONCE = f"""
import pathlib, signal
{ELSEWHERE}
    mark = pathlib.Path(os.environ["FAULTY_NOTES"] + ".died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS_HERE = f"""
import pathlib, time
if os.getpid() == {os.getpid()}:
    ends_at = time.monotonic() + 60
    importers = pathlib.Path(os.environ["FAULTY_NOTES"] + ".imports")
    while set(importers.read_text().split()) == {{str(os.getpid())}}:
        assert time.monotonic() < ends_at, "no other process has imported it"
        time.sleep(0.02)
"""
IMPORTS_FOR_LONG = f"""
import pathlib, time
{ELSEWHERE}
    time.sleep(4)
    pathlib.Path(os.environ["FAULTY_NOTES"] + ".late").touch()
    time.sleep(60)
"""
OWN_BACKEND = """
import fault_kit, kits
from jitwarm import hookimpl

class Placed(kits.Workshop):
    name = "placed"
    cache_variables = {"PLACED_CACHE_DIR": "placed"}

@hookimpl
def jitwarm_kernels():
    return [fault_kit.Faulty(name="kernel", backend="placed")]

@hookimpl
def jitwarm_backends():
    return [Placed()]
"""
TWO_BACKENDS = """
import fault_kit, kits
from jitwarm import hookimpl

class Notes(fault_kit.Faulty):
    def compile(self, key):
        fault_kit.note(key.fault, backend=self.backend)
        return super().compile(key)

class Other(kits.Workshop):
    name = "other"

@hookimpl
def jitwarm_kernels():
    return [Notes(name=name, backend=name) for name in ("workshop", "other")]

@hookimpl
def jitwarm_backends():
    return [kits.Workshop(), Other()]
"""
TOGETHER = ("meets one", "meets another")  # neither ends before both have begun
LONG_S = 60.0
BUILT = [("compiled", None)] * 2


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a plugin of a name, with what its import does besides."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(name, more="", hooks=fault_kit.PLUGIN):
        sys.modules.pop(name, None)  # of another test
        kits.install(tmp_path / "site", name, IMPORT + more + hooks)

    return install


def importers():
    """The processes that have imported a plugin, but for this one."""
    file = Path(os.environ["FAULTY_NOTES"] + ".imports")
    pids = file.read_text().split() if file.exists() else []
    return [int(pid) for pid in pids if int(pid) != os.getpid()]


@pytest.mark.parametrize("more", ["", "import torch\n"])
def test_workers_are_forked_where_the_plugin_is_imported_already(plugin, tmp_path, monkeypatch, more):
    """Also where it imports torch, and so numpy, whose OpenBLAS starts as many threads as it is allowed."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    plugin("faulty", more)
    assert run(tmp_path / "store", *TOGETHER, workers=2) == BUILT
    (template,) = importers()
    assert [noted["mother"] for noted in notes() if noted["pid"] != os.getpid()] == [template] * 2


@pytest.mark.parametrize(("workers", "first"), [(2, 1), (3, 2)])
def test_imports_begin_beside_the_listing_as_processors_allow(plugin, tmp_path, workers, first):
    """This process imports as well."""
    names = ("faulty", "another")
    plugin("faulty")
    kits.install(tmp_path / "site", "another", IMPORT + kits.GOOD)
    asked = Asked(WarmupConfig(extra={"faulty": {"does": ["builds"]}}), Settings(plugins=names, workers=workers))
    session = Session(asked, Target("cuda", "90"), root=tmp_path / "store")
    try:
        session.plan(will_run=True)
        wait_until(lambda: len(set(importers())) >= first, "it is imported")
        time.sleep(1)  # for another, should there be one
        assert len(set(importers())) == first
    finally:
        session.finish()


def test_a_template_does_not_outlive_its_mother_in_the_middle_of_an_import(plugin, tmp_path):
    """Ray kills the children of its processes, and no others. What an import writes then is where nobody removes it."""
    plugin("faulty", IMPORTS_FOR_LONG)
    workers = Workers(lambda *_, **__: None)
    try:
        workers.prestart(Job("faulty", "", "", "", "cuda:90", {}, str(tmp_path / "store"), "run"))
        (template,) = wait_until(importers, "it is being imported")
        status = Path(f"/proc/{template}/stat").read_text()
        mother = int(status.rpartition(")")[2].split()[1])
        assert mother != os.getpid()
        os.kill(mother, signal.SIGKILL)
        wait_until(lambda: not is_running(template), "the template is gone")
    finally:
        workers.close()
    assert not Path(os.environ["FAULTY_NOTES"] + ".late").exists()


def test_one_template_serves_every_backend_and_a_worker_one(plugin, tmp_path):
    plugin("faulty", hooks=TWO_BACKENDS)
    events = []
    rows = run(tmp_path / "store", *TOGETHER, workers=2, listeners=[events.append])
    assert len(rows) == 4
    assert {error for _, error in rows} == {None}
    (template,) = importers()
    elsewhere = [noted for noted in notes() if noted["pid"] != os.getpid()]
    assert {noted["mother"] for noted in elsewhere} == {template}
    of_worker = {event["child"]: event["backend"] for event in events if event["event"] == "child_start"}
    asked = {(noted["pid"], noted["backend"]) for noted in elsewhere if "backend" in noted}
    assert asked == set(of_worker.items())
    assert {backend for _, backend in asked} == {"workshop", "other"}


def start(root, *does, **settings):
    """A whole run as a command has it, which says at its listing that it will build. Returns its outcomes."""
    asked = Asked(
        WarmupConfig(extra={"faulty": {"does": list(does)}}), Settings(plugins=("faulty",), workers=2, **settings)
    )
    session = Session(asked, Target("cuda", "90"), root=root)
    try:
        return [row.outcome for row in session.run(session.plan(will_run=True)).rows]
    finally:
        session.finish()


def test_imports_begin_before_this_process_imports(plugin, tmp_path):
    plugin("faulty", WAITS_HERE)
    assert start(tmp_path / "store", *TOGETHER) == ["compiled"] * 2
    (template,) = importers()
    assert {noted["mother"] for noted in notes() if noted["pid"] != os.getpid()} == {template}


@pytest.mark.parametrize("given", [None, "/elsewhere"])
def test_what_began_before_a_backend_was_known_has_its_cache_below_the_root(plugin, tmp_path, monkeypatch, given):
    """Also where a user's value has to make way: what began with that begins anew."""
    if given:
        monkeypatch.setenv("PLACED_CACHE_DIR", given)
    plugin("faulty", hooks=OWN_BACKEND)
    start(tmp_path / "store", "shows PLACED_CACHE_DIR")
    shown = next(noted for noted in notes() if "value" in noted)
    assert shown["pid"] != os.getpid()
    assert shown["value"] == str(tmp_path / "store" / "placed")
    if not given:
        assert len(importers()) == 1


def test_where_caches_are_not_ours_a_backends_variable_is_left_alone(plugin, tmp_path):
    plugin("faulty", hooks=OWN_BACKEND)
    start(tmp_path / "store", "shows PLACED_CACHE_DIR", manage_caches=False)
    assert next(noted["value"] for noted in notes() if "value" in noted) is None


def test_where_there_is_a_store_nothing_is_imported_ahead(plugin, tmp_path):
    plugin("faulty")
    assert start(tmp_path / "store", *TOGETHER) == ["compiled"] * 2
    n_before = len(importers())
    assert start(tmp_path / "store", *TOGETHER) == ["loaded"] * 2
    assert len(importers()) == n_before


@pytest.mark.parametrize("trouble", [STARTS_A_THREAD, DIES_ONCE])
def test_where_a_fork_would_not_be_safe_each_worker_imports_the_plugin(plugin, tmp_path, trouble):
    plugin("faulty", trouble)
    assert run(tmp_path / "store", *TOGETHER, workers=2) == BUILT
    workers = [noted["pid"] for noted in notes() if noted["pid"] != os.getpid()]
    template, *others = importers()
    assert sorted(others) == sorted(workers)
    assert template not in {noted["mother"] for noted in notes()}


def test_a_template_that_is_killed_in_the_middle_costs_no_key(plugin, tmp_path):
    plugin("faulty")

    def kill(event):
        if event["event"] == "built_in_child":
            for pid in importers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    does = ["builds 1", "builds 2", "builds 3"]
    rows = run(tmp_path / "store", *does, workers=1, worker_max_jobs=1, listeners=[kill])
    assert rows == [("compiled", None)] * 3


def test_plugins_take_turns_and_workers_wait_for_theirs_up_to_a_number(plugin, tmp_path):
    names = ("one", "two", "one", "two", "three", "two")
    for name in dict.fromkeys(names):
        plugin(name)
    seen = []
    workers = Workers(lambda event, **fields: seen.append((event, fields["child"])))
    try:
        for n, name in enumerate(names):
            key = encode_key(Does(f"builds {n}"))
            job = Job(name, name, f"{name}:kernel", key, "cuda:90", {}, str(tmp_path / "store"), "run")
            assert workers.build(job, "workshop", LONG_S).status == "built"
    finally:
        workers.close()
    built = [noted["pid"] for noted in notes()]
    one, two, three = built[0], built[1], built[4]
    assert built == [one, two, one, two, three, two]
    assert seen == [("child_start", one), ("child_start", two), ("child_end", one), ("child_start", three)]
    assert len(importers()) == 3
