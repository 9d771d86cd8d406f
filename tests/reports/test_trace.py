"""The trace, checked against the format that Perfetto and chrome://tracing read (the Trace Event Format of Chromium)."""

import json
from collections import defaultdict

import made_logs
import pytest

from jitwarm.reports.document import to_text
from jitwarm.reports.folding import read_starts
from jitwarm.reports.trace import trace

REQUIRED = {
    "X": {"name", "cat", "ph", "ts", "dur", "pid", "tid"},
    "i": {"name", "cat", "ph", "ts", "s", "pid", "tid"},
    "M": {"name", "ph", "pid", "args"},
}
METADATA = {"process_name": str, "process_sort_index": int, "thread_name": str, "thread_sort_index": int}


def check(document):
    """Everything that the format asks for; returns slices by (process name, track name)."""
    document = json.loads(to_text(document), parse_constant=pytest.fail)  # NaN is no JSON
    assert document["displayTimeUnit"] in ("ms", "ns")
    names, tracks = {}, defaultdict(list)
    for event in document["traceEvents"]:
        assert event.keys() >= REQUIRED[event["ph"]], event
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            (value,) = event["args"].values()
            assert isinstance(value, METADATA[event["name"]])
            names[event["name"], event["pid"], event["tid"]] = value
            continue
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
        assert event.get("dur", 0) >= 0
        assert event.get("s", "t") in "gpt"
        tracks[event["pid"], event["tid"]].append(event)
    for events in tracks.values():
        check_track(events)
    return {
        (names["process_name", pid, 0], names["thread_name", pid, tid]): events for (pid, tid), events in tracks.items()
    }


def check_track(events):
    """Times never go back, and each slice lies beside the one before, or inside it."""
    open_until = []
    for before, event in zip([None, *events], events, strict=False):
        assert before is None or event["ts"] >= before["ts"]
        while open_until and open_until[-1] <= event["ts"]:
            open_until.pop()
        end = event["ts"] + event.get("dur", 0)
        assert not open_until or end <= open_until[-1], "slices overlap"
        open_until.append(end)


def test_a_made_start_has_a_track_for_each_worker_and_a_mark_for_each_miss(made):
    start = made(n_keys=400, n_ranks=3, n_workers=4)
    tracks = check(trace(start))
    for rank in range(3):
        process = f"rank {rank} (node1:{1000 + rank})"
        assert [event["name"] for event in tracks[process, "phases"]] == ["plan", "warmup"]
        assert len(tracks[process, "keys: loaded, or built here"]) == 400
        for worker in range(4):
            events = tracks[process, f"worker {20_000 + rank * 100 + worker} (triton)"]
            assert len(events) > 5
            assert {event["args"]["key"] for event in events} <= {key.label for key in start.keys.values()}
        marks = tracks[process, "after the warm-up"]
        assert [mark["ph"] for mark in marks] == ["i"] * 3
        assert marks[1]["args"]["differences"] == "stride_kv: other -> multiple of 16"


def test_a_failed_build_and_its_reason_are_in_the_slice(made):
    tracks = check(trace(made()))
    failed = [event for events in tracks.values() for event in events if event["cat"] == "key,failed"]
    assert failed
    assert all("too much shared data" in event["args"]["error"] for event in failed)


def test_a_host_that_builds_several_keys_at_once_has_as_many_tracks(tmp_path):
    log = made_logs.Writer(tmp_path / "run", "node1", 7)
    log.emit(0, "run_start", target="cuda:90", root="/store", on_device=False)
    log.emit(0.1, "kernel_planned", kernel="p:k", backend="triton", distribution="p 1", import_path="", notes=[])
    for name, asked_s, built_s in (("a", 1, 4), ("b", 2, 3), ("c", 3.5, 5)):
        log.emit(0.1, "key_planned", kernel="p:k", digest=name, key=name, label=name)
        log.emit(asked_s, "build_start", kernel="p:k", key=name)
        log.emit(built_s, "built_on_host", kernel="p:k", key=name, host="far", n=1)
    log.close()
    document = trace(read_starts([str(tmp_path / "run")], tmp_path)[0])
    check(document)
    tracks = {e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    built = [
        (tracks[e["tid"]], e["tid"], e["args"]["key"]) for e in document["traceEvents"] if e.get("cat") == "key,built"
    ]
    assert {name for name, _, _ in built} == {"host far"}
    assert len({track for _, track, _ in built}) == 2


@pytest.mark.xdist_group("a real start")
def test_the_trace_of_a_real_start(real):
    (start,) = read_starts(["cold"], real)
    tracks = check(trace(start))
    assert len({process for process, _ in tracks}) == 2
    built = [event for (_, track), events in tracks.items() if track.startswith("worker ") for event in events]
    assert sorted(event["args"]["digest"] for event in built) == sorted(key.digest for key in start.keys.values())
    assert all(event["dur"] > 10_000 for event in built)  # microseconds: a compiler takes more
