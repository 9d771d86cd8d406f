"""The model of a start: ranks merged, compile processes with their keys, one time line, coverage, what came later."""

import made_logs
import pytest

from jitwarm.reports.coverage import of_kernels, of_plugins, total
from jitwarm.reports.folding import read_starts
from jitwarm.reports.start import is_cold

S = 10**9


@pytest.fixture
def logs(tmp_path):
    """Write logs by hand: `log(pid, rank)` makes one with a plan of one kernel, `read` reads them all."""

    class Logs:
        def __init__(self):
            self.written = []

        def log(self, pid, rank=None, keys=("k1",), host="node1", **clocks):
            log = made_logs.Writer(tmp_path / "run", host, pid, rank, **clocks)
            self.written.append(log)
            log.emit(0, "run_start", target="cuda:90", root="/store", on_device=True)
            log.emit(
                0.1, "kernel_planned", kernel="p:k", backend="triton", distribution="p 1", import_path="", notes=[]
            )
            for key in keys:
                log.emit(0.1, "key_planned", kernel="p:k", digest=key, key=f'{{"{key}":1}}', label=key)
            return log

        def worker(self, pid, host="node1", **clocks):
            self.written.append(made_logs.Writer(tmp_path / "run", host, pid, **clocks))
            return self.written[-1]

        def read(self):
            for log in self.written:
                log.close()
            (start,) = read_starts([str(tmp_path / "run")], tmp_path)
            return start

    return Logs()


def ended(log, at_s, key, outcome, error=None, seconds=0.5):
    log.emit(at_s, "key_start", kernel="p:k", digest=key, label=key)
    log.emit(at_s + seconds, "key_end", kernel="p:k", digest=key, outcome=outcome, error=error, seconds=seconds)


def test_the_outcome_of_a_key_is_the_worst_of_its_ranks(logs):
    for rank, outcomes in enumerate((("compiled", "loaded", "loaded"), ("loaded", "failed", "loaded"))):
        log = logs.log(10 + rank, rank, keys=("a", "b", "c"))
        for i, outcome in enumerate(outcomes):
            ended(log, i + 1, "abc"[i], outcome, "boom" if outcome == "failed" else None)
    start = logs.read()
    assert {key.digest: key.outcome for key in start.keys.values()} == {"a": "compiled", "b": "failed", "c": "loaded"}
    assert [key.error for key in start.cold] == ["boom"]
    (row,) = of_kernels(start)
    assert (row.expected, row.warmed, row.loaded) == (3, 2, 1)
    assert [process.report.outcomes for process in start.processes] == [
        {"compiled": 1, "loaded": 2},
        {"loaded": 2, "failed": 1},
    ]


def test_a_key_that_only_one_rank_planned_is_judged_by_that_rank(logs):
    ended(logs.log(10, 0, keys=("a", "b")), 1, "a", "compiled")
    ended(logs.log(11, 1, keys=("a",)), 1, "a", "loaded")
    start = logs.read()
    assert start.keys["p:k", "b"].outcome is None
    assert [key.digest for key in start.cold] == ["b"]


def test_a_compile_process_is_the_one_that_says_so_and_its_key_is_found_by_text(logs):
    log = logs.log(10, 0)
    log.emit(0.2, "build_start", kernel="p:k", key='{"k1":1}')
    log.emit(0.3, "child_start", child=20, backend="triton")
    worker = logs.worker(20)
    worker.emit(0.6, "job_start", kernel="p:k", key='{"k1":1}')
    worker.emit(1.4, "job_end", kernel="p:k", key='{"k1":1}', status="built", seconds=1.0)
    ended(log, 1.5, "k1", "compiled")
    start = logs.read()
    (found,) = start.workers
    assert (found.id, found.parent, found.backend) == ("node1:20", "node1:10", "triton")
    (span,) = found.builds
    assert (span.key, span.outcome) == (("p:k", "k1"), "built")
    assert span.start_s == pytest.approx(0.4)  # its second covers the plugin's import, before there was a log
    assert span.end_s == pytest.approx(1.4)
    assert start.keys["p:k", "k1"].worker == "node1:20"


def test_a_compile_process_that_was_killed_ends_its_job_where_it_ended(logs):
    log = logs.log(10)
    log.emit(0.3, "child_start", child=20, backend="triton")
    logs.worker(20).emit(0.5, "job_start", kernel="p:k", key='{"k1":1}')
    log.emit(3.5, "child_end", child=20, why="not compiled after 3 s")
    ended(log, 3.6, "k1", "timed_out", "not compiled after 3 s")
    (worker,) = logs.read().workers
    assert worker.why_ended == "not compiled after 3 s"
    assert [(span.start_s, span.end_s, span.outcome) for span in worker.builds] == [
        (pytest.approx(0.5), pytest.approx(3.5), "")
    ]


def test_an_older_log_has_the_compiles_alone(logs):
    log = logs.log(10)
    log.emit(0.3, "child_start", child=20, backend="triton")
    logs.worker(20).emit(2.0, "compile", kernel="p:k", key='{"k1":1}', n=1, seconds=1.2)
    ended(log, 2.1, "k1", "compiled")
    (worker,) = logs.read().workers
    assert [(span.start_s, span.end_s) for span in worker.builds] == [(pytest.approx(0.8), pytest.approx(2.0))]


def test_what_a_host_of_a_cluster_built_is_a_track_of_that_host(logs):
    log = logs.log(10)
    log.emit(0.5, "build_start", kernel="p:k", key='{"k1":1}')
    log.emit(4.0, "built_on_host", kernel="p:k", key='{"k1":1}', host="far", n=1)
    ended(log, 4.1, "k1", "compiled")
    (worker,) = logs.read().workers
    assert (worker.is_host, worker.parent) == (True, "node1:10")
    assert [(span.start_s, span.end_s) for span in worker.builds] == [(pytest.approx(0.5), pytest.approx(4.0))]


def test_a_wall_clock_that_is_set_does_not_reorder_a_host(logs):
    """One host, one monotonic clock: two processes that began 2 s apart did so, although the wall clock went back by 5 s."""
    logs.log(10, 0)
    logs.log(11, 1, wall_ns=made_logs.T0_NS - 5 * S + 2 * S, mono_ns=made_logs.MONO_NS + 2 * S)
    a, b = logs.read().processes
    assert b.start_s - a.start_s == pytest.approx(2.0)


def test_hosts_meet_on_the_wall_clock(logs):
    """Their monotonic clocks count from their own boots."""
    logs.log(10, 0)
    logs.log(10, 1, host="node2", wall_ns=made_logs.T0_NS + 3 * S, mono_ns=77 * S)
    a, b = logs.read().processes
    assert (a.id, b.id) == ("node1:10", "node2:10")
    assert b.start_s - a.start_s == pytest.approx(3.0)


def test_of_several_starts_in_one_file_the_last_is_shown_and_the_reader_is_told(logs):
    first = logs.log(10)
    ended(first, 1, "k1", "failed", "boom")
    first.emit(1.2, "child_start", child=20, backend="triton")
    first.emit(2, "run_end")
    logs.worker(20).emit(1.5, "compile", kernel="p:k", key='{"k1":1}', n=1, seconds=0.2)
    first.emit(10, "run_start", target="cuda:90", root="/store", on_device=True)
    first.emit(10.1, "kernel_planned", kernel="p:k", backend="triton", distribution="p 2", import_path="", notes=[])
    first.emit(10.1, "key_planned", kernel="p:k", digest="k1", key='{"k1":1}', label="k1")
    ended(first, 10.2, "k1", "loaded")
    first.emit(11, "run_end")
    start = logs.read()
    assert start.outcomes == {"loaded": 1}
    assert start.seconds == pytest.approx(1.0)
    assert start.workers == []
    assert ["2 starts" in incident.text for incident in start.incidents] == [True]


def test_the_same_miss_on_several_ranks_is_one_with_its_seconds_summed(logs):
    for rank in range(3):
        log = logs.log(10 + rank, rank)
        log.emit(2, "monitor_armed", by="jitwarm", mode="warn")
        for at_s in (3, 4):
            miss(log, at_s + rank, kernel="p:k", label="n=1", seconds=2.0)
        miss(log, 6, kernel="p:k", label="n=2", seconds=0.5)
    start = logs.read()
    assert [(found.label, found.n, found.seconds, len(found.processes)) for found in start.unexpected] == [
        ("n=1", 6, 12.0, 3),
        ("n=2", 3, 1.5, 3),
    ]
    assert start.unexpected[0].first_s == pytest.approx(3)
    assert of_kernels(start)[0].missed == 2


def test_what_compiled_before_serving_is_apart_and_counts_as_no_miss(logs):
    """The rank whose execution run came off worst speaks for all."""
    for rank, ended in enumerate(({"status": "done", "n": 4}, {"status": "failed", "error": "RuntimeError: no"})):
        log = logs.log(10 + rank, rank)
        for during in ("vLLM's warm-up", "the execution run"):
            miss(log, 2, "undeclared_compile", kernel="p:k", label="n=1", seconds=2.0, during=during)
        log.emit(3, "execution_run", by="jitwarm", **ended)
    start = logs.read()
    assert [(found.during, found.n) for found in start.undeclared] == [("vLLM's warm-up", 2), ("the execution run", 2)]
    assert (start.unexpected, start.seconds_lost) == ([], 0)
    assert (start.execution.status, start.execution.why) == ("failed", "RuntimeError: no")


def test_where_no_account_was_kept_nobody_knows(logs):
    logs.log(10, 0)
    assert logs.read().execution is None


def miss(log, at_s, event="unexpected_compile", **fields):
    texts = ("kernel", "plugin", "key", "digest", "label", "nearest", "why", "line", "site")
    usual = dict.fromkeys(texts, "") | {
        "backend": "triton",
        "what": "compile",
        "function": "ops:f",
        "differences": [],
        "seconds": 1.0,
    }
    log.emit(at_s, event, **{**usual, **fields})


def test_coverage_counts_what_was_used_missed_and_never_asked_for(logs):
    log = logs.log(10, keys=("a", "b", "c", "d"))
    for i, outcome in enumerate(("compiled", "loaded", "compiled", "failed")):
        ended(log, i + 1, "abcd"[i], outcome, seconds=0.25)
    log.emit(6, "monitor_armed", by="jitwarm", mode="warn")
    log.emit(7, "key_used", kernel="p:k", digest="a")
    miss(log, 8, function="nobody:s", seconds=2.0)
    start = logs.read()
    known, nobodys = of_kernels(start)
    assert (known.expected, known.warmed, known.loaded, known.hit, known.missed, known.never_used) == (4, 3, 1, 1, 0, 2)
    assert known.never_used_s == pytest.approx(0.5)
    assert (nobodys.name, nobodys.plugin, nobodys.expected, nobodys.missed, nobodys.missed_s) == (
        "nobody:s",
        "",
        0,
        1,
        2.0,
    )
    assert [(row.plugin, row.expected, row.missed) for row in of_plugins([known, nobodys])] == [("p", 4, 0), ("", 0, 1)]
    assert total([known, nobodys]).missed == 1
    assert {key.digest for key in start.never_used} == {"b", "c"}


@pytest.mark.parametrize("armed", [None, {"mode": "warn"}, {"by": "vllm", "mode": "error"}])
def test_without_a_monitor_of_ours_nobody_knows_what_was_used(logs, armed):
    log = logs.log(10)
    ended(log, 1, "k1", "compiled")
    if armed:
        log.emit(2, "monitor_armed", **armed)
    start = logs.read()
    (row,) = of_kernels(start)
    assert (row.hit, row.missed, row.never_used, start.never_used) == (None, None, None, None)


def test_kernels_whose_uses_nobody_can_see_are_not_called_unused(logs):
    log = logs.log(10)
    ended(log, 1, "k1", "compiled")
    log.emit(2, "monitor_armed", by="jitwarm", mode="warn")
    log.emit(3, "uses_unknown", kernels=["p:k"])
    start = logs.read()
    (row,) = of_kernels(start)
    assert (row.hit, row.missed, row.never_used, start.never_used) == (None, 0, None, [])


def test_a_kernel_of_which_a_use_was_seen_can_be_watched_after_all(logs):
    """Before the first launch a backend may not know whether it will see any."""
    log = logs.log(10, keys=("a", "b"))
    for i, key in enumerate("ab"):
        ended(log, i + 1, key, "compiled")
    log.emit(4, "monitor_armed", by="jitwarm", mode="warn")
    log.emit(4.1, "uses_unknown", kernels=["p:k"])
    log.emit(60, "key_used", kernel="p:k", digest="a")
    (row,) = of_kernels(logs.read())
    assert (row.hit, row.never_used) == (1, 1)


def test_a_skipped_key_is_cold_only_if_something_may_ask_for_it():
    assert not is_cold("skipped", "the autotuner would skip it")
    assert is_cold("skipped", "the autotuner would skip it", strict=True)
    assert is_cold("skipped", "it is not among the first keys, which this start may build (JITWARM_MAX_KEYS)")
    assert is_cold(None, None)
    assert not is_cold("loaded", None)
