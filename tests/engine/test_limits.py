"""What a compile process may take, and how much one start may build: real processes, of the kit in `fault_kit`."""

import json
import os
import resource
import sys
import time
from pathlib import Path

import fault_kit
import kits
import pytest
from fault_kit import notes, run
from processes import wait_until

from jitwarm import hookimpl

GIB = 1 << 30
# Yields a kernel whose keys take memory, in Python and as native code does, but never more than the machine has to spare.
GREEDY = """
import mmap
import os
import kits
from fault_kit import Does, builds, note
from jitwarm import hookimpl

MOST_BYTES = 3 << 30

def in_python():
    kept = []
    while len(kept) << 26 < MOST_BYTES:
        kept.append(bytearray(1 << 26))

def natively():
    kept = []
    try:
        while len(kept) << 26 < MOST_BYTES:
            kept.append(mmap.mmap(-1, 1 << 26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError:
        os.write(2, b"LLVM ERROR: out of memory")
        os.abort()

class Greedy:
    CompileKey = Does
    name = "kernel"
    backend = kits.Workshop.name

    def dispatch(self, *, what):
        return Does(what)

    def get_warmup_keys(self, config):
        return [Does(what) for what in config.for_plugin("greedy")["does"]]

    def compile(self, key):
        note(key.fault)
        {"in python": in_python, "natively": natively}.get(key.fault, int)()
        builds(key.fault)

@hookimpl
def jitwarm_kernels():
    return [Greedy()]

@hookimpl
def jitwarm_backends():
    return [kits.Workshop()]
"""


@pytest.fixture(autouse=True)
def plugins(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    kits.install(tmp_path / "site", "faulty", fault_kit.PLUGIN)
    kits.install(tmp_path / "site", "greedy", GREEDY)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def builds():
    """What was done in compile processes, in order; this one only loads."""
    return [noted for noted in notes() if noted["pid"] != os.getpid()]


def calls():
    return [noted["does"] for noted in builds()]


def run_greedy(root, *does, **settings):
    made = fault_kit.session(root, *does, plugin="greedy", workers=1, **settings)
    report = made.run(made.plan())
    made.finish()
    return [(row.outcome, row.error) for row in report.rows]


# --- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["in python", "natively"])
def test_a_key_that_takes_more_memory_than_it_may_costs_itself(root, what):
    before, (outcome, error), after = run_greedy(root, "little", what, "less", worker_memory_bytes=GIB)
    assert (before[0], outcome, after[0]) == ("compiled", "failed", "compiled")
    assert "it may take 1.0 GiB: raise JITWARM_WORKER_MEMORY_BYTES" in error
    assert calls().count(what) == 2
    assert len({noted["pid"] for noted in builds() if noted["does"] == what}) == 2


def test_a_key_that_ran_out_of_memory_is_tried_again_when_it_may_take_more(root):
    for gib, n_calls in ((1, 2), (1, 2), (5, 3)):
        ((outcome, _),) = run_greedy(root, "in python", worker_memory_bytes=gib * GIB)
        assert outcome == ("compiled" if gib == 5 else "failed")
        assert calls().count("in python") == n_calls


def test_this_process_keeps_its_own_limit(root):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    run_greedy(root, "little", worker_memory_bytes=GIB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_key_that_was_too_slow_is_tried_again_when_it_may_take_longer(root):
    does = "sleeps 6 s"
    outcomes = [run(root, does, key_timeout_s=seconds)[0][0] for seconds in (3, 3, 60)]
    assert outcomes == ["timed_out", "failed", "compiled"]
    assert calls().count(does) == 2


# --- recycling ---------------------------------------------------------------------------------------------------------


def test_a_compile_process_is_replaced_after_its_number_of_keys(root):
    events = []
    made = fault_kit.session(
        root, *[f"builds {n}" for n in range(5)], listeners=[events.append], workers=1, worker_max_jobs=2
    )
    report = made.run(made.plan())
    assert report.outcomes == {"compiled": 5}
    pids = [noted["pid"] for noted in builds()]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
    ended = [event for event in events if event["event"] == "child_end"]
    assert [event["why"] for event in ended] == ["has built 2 keys", "has built 2 keys"]


# --- how much one start builds -----------------------------------------------------------------------------------------


def test_only_the_first_keys_are_built_and_the_rest_is_said_to_be_cold(root):
    rows = run(root, "builds 1", "builds 2", "builds 3", max_keys=2)
    assert [outcome for outcome, _ in rows] == ["compiled", "compiled", "skipped"]
    assert "JITWARM_MAX_KEYS" in rows[2][1]
    assert "builds 3" not in calls()


def test_what_is_in_the_store_is_loaded_though_it_is_not_among_the_first(root):
    run(root, "builds 2")
    rows = run(root, "builds 1", "builds 2", "builds 3", max_keys=1)
    assert [outcome for outcome, _ in rows] == ["compiled", "loaded", "skipped"]


@pytest.mark.parametrize("isolate", [True, False])
def test_the_number_of_keys_holds_in_this_process_as_well(root, isolate):
    rows = run(root, "builds 1", "builds 2", max_keys=1, isolate=isolate)
    assert [outcome for outcome, _ in rows] == ["compiled", "skipped"]


def test_the_next_start_builds_what_was_left_and_begins_with_what_took_longest(root, tmp_path):
    run(root, "builds 1", "sleeps 1 s", "builds 2", workers=1)
    (tmp_path / "notes").unlink()
    for file in (root / "manifest").iterdir():  # as if another version had built them
        file.rename(file.with_name("0" + file.name))
    run(root, "builds 1", "builds 2", "sleeps 1 s", workers=1)
    assert calls()[0] == "sleeps 1 s"


# --- after the start ---------------------------------------------------------------------------------------------------


def finish(made, plan):
    """Let the background end, and say what came of it."""
    made.finish_in_background(plan)
    made.finish()
    (log,) = (made.root / "events" / made.log.run).glob(f"*-{os.getpid()}.jsonl")

    def is_over():
        return any(json.loads(line)["event"] == "background_end" for line in log.read_text().splitlines())

    wait_until(is_over, "the background has ended", 60)


def test_what_the_budget_left_is_built_in_the_background_with_the_lowest_priority(root):
    made = fault_kit.session(
        root, "builds 1", "builds 2", "tells its priority", max_keys=1, finish_in_background=True, run_id="run"
    )
    plan = made.plan()
    assert made.run(plan).outcomes == {"compiled": 1, "skipped": 2}
    finish(made, plan)
    assert [noted["priority"] for noted in builds() if noted["does"] == "priority"] == [[19, 19]]
    rows = run(root, "builds 1", "builds 2", "tells its priority")
    assert [outcome for outcome, _ in rows] == ["loaded"] * 3


def test_what_is_skipped_for_a_reason_of_its_own_is_not_begun_again_in_the_background(root):
    events = []
    made = fault_kit.session(root, "is skipped", finish_in_background=True, listeners=[events.append])
    plan = made.plan()
    assert made.run(plan).outcomes == {"skipped": 1}
    made.finish_in_background(plan)
    made.finish()
    assert not [event for event in events if event["event"] == "background_start"]


def test_where_a_site_decides_how_keys_are_compiled_nothing_is_built_in_the_background(root):
    class Site:
        @hookimpl
        def jitwarm_compile(self):
            return None

    events = []
    made = fault_kit.session(
        root, "builds 1", "builds 2", max_keys=1, finish_in_background=True, listeners=[events.append]
    )
    made.registry.add("site", Site(), "site 1.0")
    plan = made.plan()
    assert made.run(plan).outcomes == {"compiled": 1, "skipped": 1}
    made.finish_in_background(plan)
    made.finish()
    assert not [event for event in events if event["event"] == "background_start"]


def test_without_the_setting_nothing_goes_on(root):
    made = fault_kit.session(root, "builds 1", "builds 2", max_keys=1)
    plan = made.plan()
    made.run(plan)
    made.finish_in_background(plan)
    made.finish()
    time.sleep(0.5)
    assert "builds 2" not in calls()


def test_a_server_that_ends_takes_the_background_with_it(root, tmp_path):
    script = tmp_path / "server.py"
    script.write_text(
        "import sys, fault_kit\n"
        "made = fault_kit.session(sys.argv[1], 'builds 1', 'sleeps', max_keys=1, finish_in_background=True)\n"
        "plan = made.plan()\n"
        "made.run(plan)\n"
        "made.finish_in_background(plan)\n"
        "from processes import wait_until\n"
        "wait_until(lambda: any(noted['does'] == 'sleeps' for noted in fault_kit.notes()), 'it sleeps', 60)\n"
    )
    path = os.pathsep.join(sys.path)
    done = kits.python(script, root, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    (sleeper,) = [noted["pid"] for noted in notes() if noted["does"] == "sleeps"]
    wait_until(lambda: not Path(f"/proc/{sleeper}").exists(), "the compile process is gone")
