"""The early builder, as real processes over real compile processes: what it builds, for whom, and how it ends."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fault_kit
import kits
import pytest
from fault_kit import notes, session
from processes import is_running, marked, wait_until

from jitwarm import WarmupConfig
from jitwarm.early import EarlyBuilder, Spec
from jitwarm.reports.folding import read_starts
from jitwarm.settings import Settings

RUN = "run"


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch):
    """The plugin is installed, for this process and for those that it starts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    kits.install(tmp_path / "site", "faulty", fault_kit.PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def begin(tmp_path):
    """Start a builder for these keys, as a worker does; several share a node."""
    begun = []

    def begin(*does, start="", while_loading=False, **config):
        settings = Settings(cache_dir=str(tmp_path / "store"), plugins=("faulty",), run_id=RUN, workers=2)
        known = WarmupConfig(extra={"faulty": {"does": list(does)}}, has_layers=False, **config)
        spec = Spec(known, settings, "cuda:90", start=start)
        begun.append(EarlyBuilder(spec))
        if not while_loading:
            begun[-1].loaded()  # else it gives way to the tests that run beside this one
        return begun[-1]

    yield begin
    for builder in begun:
        builder.close()


@pytest.fixture
def compiled(tmp_path):
    """What was really compiled, by whomever, in order of the processes' logs."""

    def compiled():
        logs = [file.read_text().splitlines() for file in sorted((tmp_path / "store" / "events" / RUN).glob("*.jsonl"))]
        events = [json.loads(line) for log in logs for line in log]
        return sorted(json.loads(event["key"])["fault"][1] for event in events if event["event"] == "compile")

    return compiled


def is_over(builder):
    return builder._process.poll() is not None


def test_it_builds_what_the_worker_then_only_loads(begin, tmp_path, compiled):
    builder = begin("builds 1", "builds 2")
    wait_until(lambda: is_over(builder), "everything is built", 90)
    assert compiled() == ["builds 1", "builds 2"]

    worker = session(tmp_path / "store", "builds 1", "builds 2", left_to_others=builder.will_build, run_id=RUN)
    report = worker.run(worker.plan())
    worker.finish()
    assert report.outcomes == {"loaded": 2}
    assert compiled() == ["builds 1", "builds 2"]


def test_a_worker_waits_for_what_is_on_the_list_and_builds_the_rest(begin, tmp_path, compiled):
    """It begins in the middle: nothing is built twice, and nothing is left."""
    does = ["builds 1", "sleeps 3 s", "builds 2", "builds 3"]
    builder = begin(*does)
    wait_until(notes, "the first key is being built", 90)
    builder.at_seam()
    worker = session(tmp_path / "store", *does, "builds 4", left_to_others=builder.will_build, run_id=RUN)
    report = worker.run(worker.plan())
    worker.finish()
    assert sum(report.outcomes[name] for name in ("compiled", "loaded")) == 5
    assert compiled() == sorted([*does, "builds 4"])


def test_of_many_one_builds_and_the_others_sleep(begin, compiled):
    first = begin("sleeps 4 s", tp_rank=0, tp_size=3)
    wait_until(notes, "the key is being built", 90)
    others = [begin("sleeps 4 s", tp_rank=rank, tp_size=3) for rank in (1, 2)]
    wait_until(lambda: all(asleep(builder.pid) for builder in others), "the others wait for their turn")
    wait_until(lambda: all(is_over(builder) for builder in (first, *others)), "all have had their turn", 60)
    assert compiled() == ["sleeps 4 s"]


def test_another_configuration_has_a_turn_of_its_own(begin, compiled):
    """As a pipeline stage with other layers."""
    stages = [begin("builds 1", pp_rank=0, pp_size=2), begin("builds 2", pp_rank=1, pp_size=2)]
    wait_until(lambda: all(is_over(builder) for builder in stages), "both have had their turn", 120)
    assert compiled() == ["builds 1", "builds 2"]


@pytest.mark.parametrize(("start", "n_compiled"), [("one", 1), ("another", 2)])
def test_what_another_start_has_done_is_looked_at_again(begin, compiled, tmp_path, start, n_compiled):
    """Two starts may have one name; between them anything may have been removed, or installed."""
    wait_until(functools.partial(is_over, begin("builds 1", start="one")), "everything is built", 90)
    for manifest in (tmp_path / "store" / "manifest").iterdir():
        manifest.unlink()
    for artifact in tmp_path.glob("notes.*"):
        artifact.unlink()
    wait_until(functools.partial(is_over, begin("builds 1", start=start)), "the next has had its turn", 90)
    assert compiled() == ["builds 1"] * n_compiled


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_if_it_dies_the_next_takes_over(begin, number, compiled):
    first = begin("builds 1", "sleeps 5 s", "builds 2", tp_rank=0, tp_size=2)
    wait_until(lambda: any(noted["does"].startswith("sleeps") for noted in notes()), "it builds", 90)
    second = begin("builds 1", "sleeps 5 s", "builds 2", tp_rank=1, tp_size=2)
    os.kill(first.pid, number)
    wait_until(lambda: is_over(second), "the other has had its turn", 120)
    assert second._process.returncode == 0
    assert compiled() == ["builds 1", "builds 2", "sleeps 5 s"]


def test_when_the_worker_is_gone_so_is_everything_that_it_began(begin):
    builder = begin("sleeps 60 s")
    wait_until(notes, "the key is being built", 90)
    assert marked()
    builder.close()
    wait_until(lambda: not marked(), "builder, mothers and workers are gone")


def test_a_worker_that_is_killed_takes_it_along(tmp_path):
    """Nobody closes anything then."""
    program = (
        "import fault_kit, sys, time\n"
        "from jitwarm import WarmupConfig\n"
        "from jitwarm.early import EarlyBuilder, Spec\n"
        "from jitwarm.settings import Settings\n"
        f"settings = Settings(cache_dir={str(tmp_path / 'store')!r}, plugins=('faulty',))\n"
        "config = WarmupConfig(extra={'faulty': {'does': ['sleeps 60 s']}}, has_layers=False)\n"
        "builder = EarlyBuilder(Spec(config, settings, 'cuda:90'))\n"
        "print(builder.pid, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path()}, stdout=subprocess.PIPE
    )
    try:
        pid = int(process.stdout.readline())
        wait_until(notes, "the key is being built", 90)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not is_running(pid) and not marked(), "everything is gone")


def test_who_still_waits_for_its_turn_goes_when_its_worker_warms_up(begin):
    begin("sleeps 60 s", tp_rank=0, tp_size=2)
    wait_until(notes, "the key is being built", 90)
    waiting = begin("sleeps 60 s", tp_rank=1, tp_size=2)
    wait_until(lambda: asleep(waiting.pid), "it waits")
    waiting.at_seam()
    wait_until(lambda: is_over(waiting), "it is gone")


def test_it_gives_way_to_everything_while_weights_are_loaded(begin):
    """Where the kernel divides processors among sessions, a process's own priority says nothing outside of its session."""
    builder = begin("sleeps 60 s", while_loading=True)
    wait_until(notes, "the key is being built", 90)
    compiling = notes()[0]["pid"]
    assert os.getsid(builder.pid) != os.getsid(compiling)
    for pid in (builder.pid, compiling):
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert of_session(pid) in (19, None)
    builder.loaded()
    for pid in (builder.pid, compiling):
        wait_until(lambda: of_session(pid) in (0, None), "it is as others again")  # noqa: B023 - called here


def of_session(pid):
    """The priority of a process's session, where sessions have one."""
    place = Path(f"/proc/{pid}/autogroup")
    return int(place.read_text().split()[-1]) if place.exists() else None


@pytest.mark.parametrize(("does", "is_awaited"), [("sleeps 60 s", False), ("spins 60 s", True)])
def test_one_that_comes_no_further_is_not_waited_for(begin, monkeypatch, does, is_awaited):
    """A compile that takes long, and has a processor, is waited for; one that has none is not."""
    monkeypatch.setattr("jitwarm.early.node._STALLED_S", 2.0)
    monkeypatch.setattr("jitwarm.early.progress._SHARE", 0.02)  # other tests want processors as well
    builder = begin(does)
    wait_until(notes, "the key is being built", 90)
    [planned] = builder._node._planned()
    assert builder.will_build(planned)
    asked = [builder.will_build(planned) for _ in range(120) if time.sleep(0.05) is None]
    assert asked[-1] == is_awaited


def test_what_is_built_is_not_waited_for_even_if_the_builder_goes_on(begin):
    builder = begin("builds 1", "sleeps 60 s")
    wait_until(lambda: len(notes()) == 2, "the second key is being built", 90)
    planned = builder._node._planned()
    assert len(planned) == 2
    wait_until(lambda: len([key for key in planned if builder.will_build(key)]) == 1, "one is built")


def test_the_report_tells_what_was_hidden_and_whose_it_was(begin, tmp_path):
    """A key that the builder planned and did not come to is none that the start lacks."""
    builder = begin("builds 1", "sleeps 2 s")
    wait_until(lambda: is_over(builder), "everything is built", 90)
    worker = session(tmp_path / "store", "builds 1", left_to_others=builder.will_build, run_id=RUN)
    worker.run(worker.plan())
    worker.finish()
    [start] = read_starts([RUN], tmp_path / "store")
    assert [process.pid for process in start.builders] == [builder.pid]
    assert [process.pid for process in start.processes] == [os.getpid()]
    assert [key.outcome for key in start.keys.values()] == ["loaded"]
    assert start.is_warm
    assert start.n_compiles == 2
    assert start.hidden_s > 2
    assert start.added_s > 0


def asleep(pid):
    """Whether a process waits for a lock and uses no processor."""
    return "lock" in Path(f"/proc/{pid}/wchan").read_text()


def path():
    return os.pathsep.join(place for place in sys.path if place)
