"""Compile processes, real ones: a key that dies, hangs or lies costs itself, and nothing else in the plan.

What the keys do is in `jitwarm.testing` and `tests/support/fault_kit.py`.
"""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import fault_kit
import kits
import pytest
from fault_kit import Does, notes, run
from kits import FourMembers, Key, Plugin
from processes import SUPPORT, is_running, marked, wait_until

from jitwarm import Outcome, WarmupConfig, hookimpl
from jitwarm.contract.keys import encode_key
from jitwarm.engine.jobs import Job
from jitwarm.engine.workers import Workers
from jitwarm.errors import KeyTimeoutError, WorkerDiedError, WorkersUnavailableError
from jitwarm.testing import FAULTS

FAILURES = ("raises", "exits", "raises unpicklable", "raises without text")
DEATHS = (
    "ends",
    "aborts",
    "segfaults",
    "kills itself",
    "dies of a signal without a name",
    "prints and ends",
    "prints to stdout and ends",
    "starts a process and ends",
)
HANGS = ("sleeps", "spins", "starts a process and sleeps")
# Longer than any key that works; and long enough for one that does to be built on a busy machine.
LONG_S, SHORT_S = 30.0, 4.0


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch):
    """The plugin is installed, for this process and for those that it starts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    kits.install(tmp_path / "site", "faulty", fault_kit.PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for pid in started():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def events():
    return []


@pytest.fixture
def workers(events):
    made = Workers(lambda event, **fields: events.append((event, fields)))
    yield made
    made.close()


@pytest.fixture
def build(workers, root):
    """Build one key through `Workers`."""

    def build(what, timeout_s=LONG_S):
        job = Job("faulty", "faulty", "faulty:kernel", encode_key(Does(what)), "cuda:90", {}, str(root), "run")
        return workers.build(job, "workshop", timeout_s)

    return build


def n_calls(what):
    return sum(noted["does"] == what for noted in notes())


def started():
    """The processes that a key has started and left."""
    return [pid for pid, command in marked().items() if command.startswith("sleep")]


def quarantined(root):
    return sorted((root / "quarantine").glob("*.json"))


# --- one key through Workers -------------------------------------------------------------------------------------------


def test_a_key_is_built_in_another_process_and_the_next_one_in_the_same(build, events):
    assert [build("builds").error for _ in range(2)] == ["", ""]
    first, second = notes()
    assert first["pid"] == second["pid"] != os.getpid()
    assert first["mother"] != os.getpid()
    assert events == [("child_start", {"child": first["pid"], "backend": "workshop"})]


def test_a_mother_that_is_killed_at_her_first_start_is_replaced(tmp_path, monkeypatch, root, events):
    """As by a kernel that ends processes where memory ends: that another may start is no reason to compile in the server."""
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "if 'jitwarm.child' in sys.orig_argv and not Path(os.environ['FAULTY_NOTES'] + '.fatal').exists():\n"
        "    Path(os.environ['FAULTY_NOTES'] + '.fatal').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    workers = Workers(lambda event, **fields: events.append((event, fields)))
    job = Job("faulty", "faulty", "faulty:kernel", encode_key(Does("builds")), "cuda:90", {}, str(root), "run")
    try:
        assert workers.build(job, "workshop", LONG_S).status == "built"
    finally:
        workers.close()
    assert (tmp_path / "notes.fatal").exists()


def test_compiler_runs_are_counted_where_they_happen(build):
    assert [build(what).n_compiles for what in ("builds", "builds", "returns")] == [1, 0, 0]


def test_output_of_any_length_holds_nothing_up(build):
    assert build("prints megabytes").status == "built"
    assert build("builds").status == "built"


@pytest.mark.parametrize("what", FAILURES)
def test_an_exception_is_an_answer_and_the_worker_lives_on(build, what):
    answer = build(what)
    assert answer.status == "failed"
    assert FAULTS[what].says in answer.error
    assert build("builds").status == "built"
    assert len({noted["pid"] for noted in notes()}) == 1


@pytest.mark.parametrize("what", DEATHS)
def test_a_worker_that_dies_is_named_by_its_end_and_the_next_key_gets_a_fresh_one(build, events, what):
    with pytest.raises(WorkerDiedError) as caught:
        build(what)
    assert FAULTS[what].says in str(caught.value)
    assert build("builds").status == "built"
    assert [event for event, _ in events] == ["child_start", "child_end", "child_start"]


def test_the_last_lines_and_not_all_are_in_the_error(build):
    with pytest.raises(WorkerDiedError) as caught:
        build("prints and ends")
    assert "line 999" in caught.value.hint
    assert "line 900" not in caught.value.hint


@pytest.mark.parametrize("what", HANGS)
def test_a_worker_that_hangs_is_killed_and_the_next_key_gets_a_fresh_one(build, what):
    build("builds")  # so that the time below is the key's alone
    with pytest.raises(KeyTimeoutError, match="not compiled after 2 s: the compiler was killed") as caught:
        build(what, timeout_s=2)
    assert "JITWARM_KEY_TIMEOUT_S" in caught.value.hint
    hung = next(noted for noted in notes() if noted["does"] == what)
    wait_until(lambda: not is_running(hung["pid"]), "the worker is gone")
    assert build("builds").status == "built"


def test_what_a_worker_started_is_killed_with_it(build):
    build("builds")
    with pytest.raises(KeyTimeoutError) as caught:
        build("starts a process and sleeps", timeout_s=3)
    grandchild = int(caught.value.hint.rpartition("started process ")[2])
    wait_until(lambda: not is_running(grandchild), "the process that the compiler started is gone")


def test_an_interrupt_kills_the_worker_that_nobody_waits_for_any_more(build):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def interrupt():
        wait_until(lambda: n_calls("sleeps"), "the key is being compiled")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        build("sleeps")
    thread.join()
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: not is_running(notes()[0]["pid"]), "the worker is gone")
    assert build("builds").status == "built"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_worker_that_dies_while_it_waits_costs_no_key_its_try(build, events, number):
    build("builds")
    idle = notes()[0]["pid"]
    os.kill(idle, number)
    wait_until(lambda: not is_running(idle), "the worker is gone")
    assert build("builds").status == "built"
    assert [event for event, _ in events] == ["child_start", "child_end", "child_start"]


def test_a_mother_that_is_killed_is_replaced(build):
    build("builds")
    mother = notes()[0]["mother"]
    os.kill(mother, signal.SIGKILL)
    wait_until(lambda: not is_running(mother), "the mother is gone")
    with pytest.raises(WorkerDiedError):
        build("ends")
    assert build("builds").status == "built"
    assert notes()[-1]["mother"] != mother


def test_closing_leaves_no_process_behind(build, workers):
    build("starts a process")
    (first,), (grandchild,) = notes(), wait_until(started, "the process that the key started is there")
    workers.close()
    for pid in (first["pid"], first["mother"], grandchild):
        wait_until(lambda pid=pid: not is_running(pid), "every process is gone")
    workers.close()  # twice is fine


def test_where_no_process_can_be_started_it_is_told_with_what_it_printed(build, monkeypatch, tmp_path):
    refusal = tmp_path / "python"
    refusal.write_text("#!/bin/sh\necho no such interpreter here >&2\nexit 9\n")
    refusal.chmod(0o755)
    for executable, text in (("/nonexistent", "No such file"), (str(refusal), "no such interpreter here")):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(WorkersUnavailableError) as caught:
            build("builds")
        assert text in str(caught.value)


# --- a whole run -------------------------------------------------------------------------------------------------------


def run_around(root, what, **settings):
    """A run of the key between two that work. Returns its row's outcome and error; the others are fine."""
    before, row, after = run(root, "builds", what, "builds too", **settings)
    assert before == after == ("compiled", None)
    return row


@pytest.mark.parametrize("what", FAILURES)
def test_an_exception_is_one_failed_row_and_is_tried_again(root, what):
    outcome, error = run_around(root, what)
    assert outcome == "failed"
    assert FAULTS[what].says in error
    assert quarantined(root) == []
    run(root, what)
    assert n_calls(what) == 2


@pytest.mark.parametrize(
    ("what", "outcome", "text"),
    [
        ("prints megabytes", "compiled", None),
        ("returns", "loaded", None),
        ("is skipped", "skipped", "the autotuner would skip it"),
        ("is unresolved", "unresolved", "needs a device\n  hint: warm it elsewhere"),
    ],
)
def test_what_is_no_failure_is_none(root, what, outcome, text):
    assert run_around(root, what) == (outcome, text)
    assert quarantined(root) == []


@pytest.mark.parametrize("what", DEATHS)
def test_a_death_is_tried_twice_then_quarantined_and_tried_again_when_the_file_is_removed(root, what):
    outcome, error = run_around(root, what)
    assert outcome == "failed"
    assert FAULTS[what].says in error
    assert n_calls(what) == 2
    (file,) = quarantined(root)
    outcome, error = run(root, what)[0]
    assert outcome == "failed"
    assert "not tried again, because earlier the compile process ended" in error
    assert str(file) in error
    assert n_calls(what) == 2
    file.unlink()
    run(root, what)
    assert n_calls(what) == 4


@pytest.mark.parametrize("what", HANGS)
def test_a_hang_is_tried_once_then_quarantined_and_tried_again_when_the_file_is_removed(root, what):
    outcome, error = run_around(root, what, key_timeout_s=SHORT_S)
    assert outcome == "timed_out"
    assert "the compiler was killed" in error
    assert n_calls(what) == 1
    (file,) = quarantined(root)
    assert json.loads(file.read_text())["key"] == encode_key(Does(what))
    outcome, error = run(root, what, key_timeout_s=SHORT_S)[0]
    assert outcome == "failed"
    assert "not tried again, because earlier not compiled after" in error
    assert str(file) in error
    file.unlink()
    assert run(root, what, key_timeout_s=SHORT_S / 2)[0][0] == "timed_out"
    assert n_calls(what) == 2


def test_a_second_run_builds_nothing_and_starts_no_process(root):
    events = []
    for _ in range(2):
        events.clear()
        session = fault_kit.session(root, "builds", listeners=[events.append])
        report = session.run(session.plan())
    assert report.outcomes == {"loaded": 1}
    assert "child_start" not in [event["event"] for event in events]


def test_keys_that_the_budget_cuts_off_are_skipped_and_not_quarantined(root):
    rows = run(root, "sleeps", "builds", time_budget_s=3, workers=1)
    assert [outcome for outcome, _ in rows] == ["skipped", "skipped"]
    assert all("JITWARM_TIME_BUDGET_S" in error for _, error in rows)
    assert quarantined(root) == []


@pytest.mark.parametrize("isolate", [True, False])
def test_after_the_budget_nothing_is_built_and_what_is_stored_is_still_loaded(root, isolate):
    assert run(root, "builds", isolate=isolate) == [("compiled", None)]
    (loaded, _), (outcome, error) = run(root, "builds", "builds too", time_budget_s=0, isolate=isolate)
    assert (loaded, outcome) == ("loaded", "skipped")
    assert "JITWARM_TIME_BUDGET_S" in error
    assert n_calls("builds too") == 0


def test_keys_are_built_by_several_workers_at_once(root):
    """Each key waits until it sees the other under way."""
    assert run(root, "meets another", "meets one", workers=2) == [("compiled", None)] * 2
    assert len({noted["pid"] for noted in notes() if noted["does"].startswith("meets")}) >= 2


def test_where_a_site_decides_how_keys_are_compiled_nothing_is_built_ahead(root):
    """A policy that fetches a key must not find that it was built meanwhile."""
    session = fault_kit.session(root, "builds", "builds too")

    class Fetches:
        @hookimpl
        def jitwarm_compile(self, key):
            return Outcome.LOADED if key == Does("builds") else None

    session.registry.add("site", Fetches())
    assert [row.outcome for row in session.run(session.plan()).rows] == ["loaded", "compiled"]
    assert n_calls("builds") == 0


def test_without_isolation_keys_are_compiled_in_this_process(root):
    assert run(root, "builds", "raises", isolate=False) == [
        ("compiled", None),
        ("failed", "ValueError: tile does not divide"),
    ]
    assert {noted["pid"] for noted in notes()} == {os.getpid()}


def add_own(session, kernel):
    """Add a kernel that this process alone knows; the installed plugin brings the backend."""
    plugin = Plugin(kernel)
    plugin.jitwarm_backends = None
    session.registry.add("mine", plugin, "mine 1.0")


def test_where_no_process_can_be_started_keys_are_compiled_in_this_one_and_it_is_told_once(root, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    events = []
    session = fault_kit.session(root, "builds", "raises", "builds too", listeners=[events.append])
    add_own(session, FourMembers(Key(1), backend="workshop"))
    report = session.run(session.plan())
    assert [row.outcome for row in report.rows] == ["compiled", "failed", "compiled", "compiled"]
    assert {noted["pid"] for noted in notes()} == {os.getpid()}
    (told,) = [event for event in events if event["event"] == "isolation_unavailable"]
    assert "a compile process does not start (status 1)" in told["error"]


def test_a_kernel_that_is_known_here_alone_is_compiled_here_and_it_is_told_why(root):
    events = []
    session = fault_kit.session(root, "builds", listeners=[events.append])
    kernel = FourMembers(Key(1), Key(2), backend="workshop")
    add_own(session, kernel)
    report = session.run(session.plan())
    assert {row.outcome for row in report.rows} == {"compiled"}
    assert sorted(key.n for key in kernel.built) == [1, 2]
    (told,) = [event for event in events if event["event"] == "local"]
    assert told["kernel"] == "mine:four"
    assert "mine:four is not there in a compile process" in told["why"]


# --- the processes around ----------------------------------------------------------------------------------------------


def test_isolation_works_inside_a_daemonic_process(root, tmp_path):
    """vLLM's workers are daemonic, and may have no children of `multiprocessing`."""
    process = multiprocessing.get_context("spawn").Process(
        target=fault_kit.run_into, args=(tmp_path / "rows.json", root, "builds", "segfaults", "builds too"), daemon=True
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [outcome for outcome, _ in rows] == ["compiled", "failed", "compiled"]
    assert n_calls("segfaults") == 2


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a fork that holds its sockets"])
def test_when_the_server_is_killed_its_compile_processes_end(root, forks):
    path = os.pathsep.join(sys.path)
    environ = {**os.environ, "PYTHONPATH": path, **({"FAULTY_FORKS": "1"} if forks else {})}
    kit = [sys.executable, str(SUPPORT / "fault_kit.py"), str(root), "starts a process and sleeps"]
    with subprocess.Popen(kit, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: started() and (n_calls("holder") or not forks), "a key is being compiled", 60)
            pids = started()
        finally:
            server.kill()
    pids += [noted[name] for noted in notes() for name in ("pid", "mother") if noted["does"] != "holder"]
    try:
        for pid in pids:
            wait_until(lambda pid=pid: not is_running(pid), "mother, worker and what it started are gone")
    finally:
        for noted in notes():
            if noted["does"] == "holder":
                os.kill(noted["pid"], signal.SIGKILL)


def test_a_compile_that_hangs_ends_by_itself_when_nobody_is_left_to_end_it(root):
    """As where the machine's memory ends, and server, mother and template are all killed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FAULTY_KEY_TIMEOUT_S": "4"}
    kit = [sys.executable, str(SUPPORT / "fault_kit.py"), str(root), "sleeps"]
    with subprocess.Popen(kit, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        wait_until(lambda: n_calls("sleeps"), "a key is being compiled", 60)
        worker, template = (notes()[0][name] for name in ("pid", "mother"))
        mother = int(Path(f"/proc/{template}/stat").read_text().rpartition(")")[2].split()[1])
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody sees another's end
            for pid in (mother, template, server.pid):
                os.kill(pid, number)
    assert is_running(worker)
    wait_until(lambda: not is_running(worker), "it has ended", 60)


def test_a_server_that_is_asked_to_end_ends_in_the_middle_of_a_key(root):
    """Its handler raises `SystemExit`, as vLLM's workers do: that is no key's failure."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kit = [sys.executable, str(SUPPORT / "fault_kit.py"), str(root), "sleeps", "starts a process and sleeps"]
    with subprocess.Popen(kit, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: n_calls("sleeps"), "a key is being compiled", 60)
            server.terminate()
            assert server.wait(20) == 143
        finally:
            server.kill()
    wait_until(lambda: not marked(), "mother, worker and what it started are gone")
    assert quarantined(root) == []


def test_a_job_and_its_configuration_are_their_json():
    config = json.loads(json.dumps(dataclasses.asdict(WarmupConfig(cudagraph_capture_sizes=(1, 2)))))
    job = Job("faulty", "", "faulty:kernel", "{}", "cuda:90", config, "/store", "run", "faulty 1.0", "faulty:kernel")
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
